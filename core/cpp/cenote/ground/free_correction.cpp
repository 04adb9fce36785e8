#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {

constinit thread_local free_correction::correction free_correction::last_{};

}  // namespace cenote::inline v1
