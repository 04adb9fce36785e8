# What find_package(cenote) reads: the target cenote::cenote.
include("${CMAKE_CURRENT_LIST_DIR}/cenote-targets.cmake")

# The headers are C++20, for CUDA's compiler too.
if(CMAKE_CUDA_COMPILER_LOADED)
  set_property(TARGET cenote::cenote APPEND PROPERTY INTERFACE_COMPILE_FEATURES cuda_std_20)
endif()
