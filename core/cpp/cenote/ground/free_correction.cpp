#include "cenote/ground/free_correction.hpp"

namespace cenote {

constinit thread_local free_correction::correction free_correction::last_{};

}  // namespace cenote
