// The C ABI (cenote.h): each function is the C++ one of the same meaning behind one error border.
#include <exception>
#include <stdexcept>
#include <string>

#include "cenote/cenote.h"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/surface/allocation_ledger.hpp"
#include "cenote/surface/client.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/registry.hpp"
#include "cenote/surface/specification.hpp"

namespace {

thread_local std::string last_error;  // NOLINT: the C ABI's one channel for texts

/// Runs `body`; what it throws becomes `failure` and a text.
template <class Result, class Body>
Result guarded(Result failure, Body&& body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an unknown error";
  }
  return failure;
}

const char* required(const char* text, const char* parameter) {
  if (text == nullptr) throw std::invalid_argument(std::string(parameter) + " must not be null");
  return text;
}

cenote::stream_ref as_stream(void* handle) { return static_cast<CUstream_st*>(handle); }

}  // namespace

extern "C" {

int cenote_abi_version(void) { return CENOTE_ABI_VERSION; }

int cenote_register_client(const char* name) {
  return guarded(-1, [=] { return cenote::register_client(required(name, "name")); });
}

void* cenote_allocate(int client, int device, size_t bytes, void* stream) {
  return guarded<void*>(nullptr, [=] { return cenote::client_allocate(client, device, bytes, as_stream(stream)); });
}

void* cenote_allocate_or_throw(int client, int device, size_t bytes, void* stream) {
  return cenote::client_allocate(client, device, bytes, as_stream(stream));
}

void cenote_deallocate(void* pointer, void* stream) { cenote::client_deallocate(pointer, as_stream(stream)); }

int cenote_record_stream(void* pointer, void* stream) {
  return guarded(-1, [=] {
    cenote::client_record_stream(pointer, as_stream(stream));
    return 0;
  });
}

void cenote_capture_begin(int device) {
  guarded(-1, [=] {
    cenote::check_device(device);
    cenote::capture_begins(device);
    return 0;
  });
}

void cenote_capture_end(int device) {
  guarded(-1, [=] {
    cenote::check_device(device);
    if (cenote::capture_ended(device)) cenote::reclaimer::of(device).free_pending();
    return 0;
  });
}

int64_t cenote_trim(int device) {
  return guarded<int64_t>(-1, [=] {
    cenote::check_device(device);
    cenote::reclaimer::of(device).free_pending();
    const auto resource = cenote::find_per_device_resource(device);
    return resource ? static_cast<int64_t>(resource->trim()) : 0;
  });
}

int cenote_set_device_resource(int device, const char* specification) {
  return guarded(-1, [=] {
    cenote::set_per_device_resource(device, cenote::make_resource(required(specification, "specification"), device));
    return 0;
  });
}

int cenote_device_count(void) {
  return guarded(-1, [] { return cenote::device_count(); });
}

const void* cenote_registry_address(void) { return cenote::registry_address(); }

const char* cenote_last_error(void) { return last_error.c_str(); }

}  // extern "C"
