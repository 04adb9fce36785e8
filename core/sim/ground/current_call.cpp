#include "sim/ground/current_call.hpp"

namespace cenote::sim {
namespace {

thread_local const char* call_of_this_thread = "";

}  // namespace

const char* current_call() { return call_of_this_thread; }

void set_current_call(const char* name) { call_of_this_thread = name; }

}  // namespace cenote::sim
