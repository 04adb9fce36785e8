cdef tuple device_array(object array)
