# Declarations of libcenote's C++ API: the one place where Cython learns of it.
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libcpp cimport bool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.optional cimport optional
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "<chrono>" namespace "std::chrono" nogil:
    cdef cppclass milliseconds:
        milliseconds() except +
        milliseconds(int64_t) except +


cdef extern from "python_error.hpp" namespace "cenote" nogil:
    void raise_python_error()


# Slots of a type. Cython's own declarations of them say that an exception may be set; none may.
cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    ctypedef int (*visitproc)(PyObject*, void*) noexcept
    ctypedef int (*traverseproc)(PyObject*, visitproc, void*) noexcept
    ctypedef int (*inquiry)(PyObject*) noexcept
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject**, size_t, PyObject*) noexcept
    Py_ssize_t PyVectorcall_NARGS(size_t flags) noexcept
    ctypedef struct PyTypeObject:
        const char* tp_name
        vectorcallfunc tp_vectorcall
        PyTypeObject* tp_base
        traverseproc tp_traverse
        inquiry tp_clear
    PyTypeObject* Py_TYPE(PyObject*) noexcept
    void PyType_Modified(type) noexcept


cdef extern from "python_callable.hpp" namespace "cenote":
    cdef cppclass python_object:
        python_object(PyObject*)
        int visit(visitproc, void*) noexcept
        void clear() noexcept

    cdef cppclass allocate_function "cenote::callback_memory_resource::allocate_function":
        pass
    cdef cppclass deallocate_function "cenote::callback_memory_resource::deallocate_function":
        pass
    allocate_function python_allocate_function "cenote::python_function"(
        shared_ptr[python_object], void* (*)(object, stream_ref, size_t) except? NULL)
    deallocate_function python_free_function(
        shared_ptr[python_object], void (*)(object, stream_ref, void*, size_t) except *)


cdef extern from "python_lease.hpp" namespace "cenote":
    ctypedef void (*let_go_function)(object) noexcept
    cdef cppclass lease_holders "std::unordered_map<PyObject*, cenote::let_go_function>":
        bool empty() noexcept
    cdef cppclass standing:
        lease_holders holders
    shared_ptr[memory_resource] lease_of(const shared_ptr[memory_resource]& resource, PyObject* object,
                                         const shared_ptr[standing]& others) except +raise_python_error
    bool is_owned_alone(const shared_ptr[memory_resource]& resource, const shared_ptr[standing]& others) noexcept
    cdef cppclass leases:
        void hold(shared_ptr[memory_resource] lease, PyObject* of, shared_ptr[standing] others, long users,
                  PyObject* holder, let_go_function let_go) except +raise_python_error
        void set_users(long users) noexcept
        long users_of_first() noexcept
        void swap(leases& other, PyObject* mine, PyObject* others, let_go_function let_go) except +raise_python_error
        void drop(PyObject* holder) noexcept
        int visit(visitproc, void*) noexcept
    void let_go_of_all(const standing& there) except +raise_python_error


cdef extern from "cenote/surface/call_site.hpp" namespace "cenote" nogil:
    cdef cppclass sampled_block:
        uintptr_t address
        string site
    vector[sampled_block] sampled_blocks() except +raise_python_error


cdef extern from "python_stack.hpp" namespace "cenote" nogil:
    void sample_python_sites(size_t every) except +raise_python_error
    cdef cppclass interpreter:
        pass
    interpreter python_interpreter() except +raise_python_error


cdef extern from "dlpack.hpp" namespace "cenote":
    cdef enum class dl_device_type(int):
        cpu
        cuda
        cuda_host
        cuda_managed
    object make_dl_capsule(object owner, void* data, size_t bytes, dl_device_type type, int device, bint versioned,
                           bint copied)


# Cython's own declarations of these turn what a constructor throws into the built-in exceptions only.
cdef extern from "<memory>" namespace "std" nogil:
    shared_ptr[T] make_shared[T](...) except +raise_python_error
    unique_ptr[T] make_unique[T](...) except +raise_python_error


cdef extern from "cenote/ground/bytes.hpp" namespace "cenote" nogil:
    optional[size_t] parse_bytes(const string& text)
    bool is_power_of_two(size_t n) noexcept
    string format_bytes(size_t bytes)


cdef extern from "cenote/ground/error.hpp" namespace "cenote" nogil:
    cdef struct memory_state:
        optional[size_t] in_use
        optional[size_t] held
        optional[size_t] limit
        optional[size_t] largest_free
        optional[size_t] device_free
        optional[size_t] device_total


cdef extern from "cenote/ground/reports.hpp" namespace "cenote" nogil:
    uint64_t report_count()
    vector[string] kept_reports() except +raise_python_error
    void clear_reports()


cdef extern from "cenote/ground/foreign_exception.hpp" namespace "cenote" nogil:
    cdef cppclass interrupt_scope:
        interrupt_scope() noexcept
        bool has_interrupt() noexcept
        void end() except +raise_python_error


cdef extern from "cenote/ground/log.hpp" namespace "cenote" nogil:
    cdef enum log_level "cenote::log_level":
        pass
    cdef cppclass log_record:
        log_level level
        double time
        long thread
        string text
    log_level logging_level()
    void set_logging_level(log_level level)
    log_level flush_level()
    void set_flush_level(log_level level)
    bool should_log(log_level level)
    void log(log_level level, const string& text)
    void flush_log()
    void start_listening() except +raise_python_error
    void stop_listening()
    bool wait_for_log_records() except +raise_python_error
    vector[log_record] take_log_records() except +raise_python_error
    void print_log_record(log_level level, const string& text)


cdef extern from "cenote/driver/driver_info.hpp" namespace "cenote" nogil:
    bool driver_is_loaded()
    string driver_library() except +raise_python_error
    int driver_version() except +raise_python_error
    int usable_cuda_version() except +raise_python_error
    bool driver_is_simulated() except +raise_python_error
    void forget_driver() except +raise_python_error


cdef extern from "cenote/driver/device.hpp" namespace "cenote" nogil:
    cdef struct device_memory:
        size_t free_bytes
        size_t total_bytes
    int device_count() except +raise_python_error
    void check_device(int device) except +raise_python_error
    int current_device() except +raise_python_error
    optional[int] device_to_begin_with() except +raise_python_error
    void set_current_device(int device) except +raise_python_error
    int device_attribute(int device, int attribute) except +raise_python_error
    string device_name(int device) except +raise_python_error
    string device_uuid(int device) except +raise_python_error
    int device_compute_capability(int device) except +raise_python_error
    device_memory device_memory_info(int device) except +raise_python_error
    void synchronize_device(int device) except +raise_python_error


cdef extern from *:
    cdef struct CUstream_st:
        pass
    cdef struct CUmemPoolHandle_st:
        pass


cdef extern from "cenote/driver/stream_ref.hpp" namespace "cenote" nogil:
    cdef cppclass stream_ref:
        stream_ref()
        stream_ref(CUstream_st*)
        CUstream_st* value()
        bool is_legacy_default()

    int device_of_stream(stream_ref stream, int device) except +raise_python_error
    void synchronize(stream_ref stream, int device) except +raise_python_error
    bool is_done(stream_ref stream, int device) except +raise_python_error


cdef extern from "cenote/driver/cuda_stream.hpp" namespace "cenote" nogil:
    cdef enum stream_kind "cenote::cuda_stream::kind":
        pass

    cdef cppclass cuda_stream:
        cuda_stream(int device, stream_kind kind) except +raise_python_error
        stream_ref view()


cdef extern from "cenote/driver/stream_pool.hpp" namespace "cenote" nogil:
    cdef cppclass cuda_stream_pool:
        cuda_stream_pool(int device, size_t size, stream_kind kind) except +raise_python_error
        const shared_ptr[cuda_stream]& get_stream()
        const shared_ptr[cuda_stream]& get_stream(size_t id)
        size_t size()
        int device()


cdef extern from "cenote/driver/kept_stream.hpp" namespace "cenote" nogil:
    cdef cppclass kept_stream:
        kept_stream(stream_ref stream)
        bool is_known_here()
    void order_after(const kept_stream& later, int later_device, const kept_stream& earlier,
                     int earlier_device) except +raise_python_error


cdef extern from "cenote/driver/device_budget.hpp" namespace "cenote" nogil:
    cdef cppclass budget_figures:
        optional[size_t] limit
        size_t held
        size_t shared
    void set_budget_by(const string& set_by, int device, const string& amount) except +raise_python_error
    void share_budget(int device, int file) except +raise_python_error
    uint32_t requests_of_budget(int device) except +raise_python_error
    void set_budget_of_device "cenote::set_budget"(int device, const string& amount) except +raise_python_error
    void set_budget_of_all "cenote::set_budget"(const string& amount) except +raise_python_error
    budget_figures budget_of(int device) except +raise_python_error


cdef extern from "cenote/driver/memory.hpp" namespace "cenote" nogil:
    void copy_async(void* to, const void* source, size_t bytes, stream_ref stream,
                    int device) except +raise_python_error
    void prefetch_async(const void* pointer, size_t bytes, int location, stream_ref stream,
                        int device) except +raise_python_error
    cdef struct address_range:
        void* base
        size_t bytes
    address_range find_address_range(const void* pointer, int device) except +raise_python_error
    const int host_location
    cdef enum class memory_kind(int):
        pageable
        device
        pinned
        managed
    memory_kind kind_of(const void* pointer, int device) except +raise_python_error
    optional[int] device_of(const void* pointer, int device) except +raise_python_error


cdef extern from "cenote/driver/memory_pool.hpp" namespace "cenote" nogil:
    cdef enum peer_choice "cenote::peer_devices::choice":
        peers_in_use "cenote::peer_devices::choice::in_use"
        all_peers "cenote::peer_devices::choice::all"
        named_peers "cenote::peer_devices::choice::named"
    cdef cppclass peer_devices:
        peer_choice which
        vector[int] devices
    cdef struct export_handles:
        bool posix_file_descriptor
        bool fabric


cdef extern from "cenote/memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass memory_resource:
        void* allocate(stream_ref stream, size_t bytes, size_t alignment) except +raise_python_error
        void deallocate(stream_ref stream, void* pointer, size_t bytes, size_t alignment)
        void* allocate_at_once(stream_ref stream, size_t bytes, size_t alignment)
        bool deallocate_at_once(stream_ref stream, void* pointer, size_t bytes, size_t alignment)
        int device()
        string kind() except +raise_python_error
        shared_ptr[memory_resource] upstream()
        memory_state state() except +raise_python_error
        bool is_host_accessible()
        size_t trim(size_t keep_bytes, bool wait) except +raise_python_error
        void check() except +raise_python_error
    string describe(const memory_resource& resource) except +raise_python_error


cdef extern from "cenote/resources/cuda_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass cuda_memory_resource(memory_resource):
        cuda_memory_resource() except +raise_python_error


cdef extern from "cenote/resources/managed_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass managed_memory_resource(memory_resource):
        managed_memory_resource() except +raise_python_error


cdef extern from "cenote/resources/pinned_host_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass pinned_host_memory_resource(memory_resource):
        pinned_host_memory_resource() except +raise_python_error


cdef extern from "cenote/resources/cuda_async_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass async_options "cenote::cuda_async_memory_resource::options":
        size_t initial_pool_size
        uint64_t release_threshold
        export_handles handles
        peer_devices peers
    cdef cppclass cuda_async_memory_resource(memory_resource):
        cuda_async_memory_resource(const async_options&) except +raise_python_error
        void* pool_handle()


cdef extern from "cenote/resources/virtual_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass virtual_options "cenote::virtual_memory_resource::options":
        optional[bool] ipc
        bint fabric
        bint for_rdma
        peer_devices peers
    cdef cppclass virtual_memory_resource(memory_resource):
        virtual_memory_resource(const virtual_options&) except +raise_python_error


cdef extern from "cenote/resources/cuda_async_view_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass cuda_async_view_memory_resource(memory_resource):
        cuda_async_view_memory_resource(CUmemPoolHandle_st*) except +raise_python_error
        cuda_async_view_memory_resource(int, CUmemPoolHandle_st*, const peer_devices&) except +raise_python_error
        void* pool_handle()


cdef extern from "cenote/resources/cuda_async_managed_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass cuda_async_managed_memory_resource(memory_resource):
        cuda_async_managed_memory_resource() except +raise_python_error
        void* pool_handle()


cdef extern from "cenote/resources/system_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass system_memory_resource(memory_resource):
        system_memory_resource() except +raise_python_error


cdef extern from "cenote/resources/sam_headroom_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass sam_headroom_memory_resource(memory_resource):
        sam_headroom_memory_resource(size_t headroom) except +raise_python_error


cdef extern from "cenote/resources/pool_memory_resource.hpp" namespace "cenote" nogil:
    cdef struct pool_counters:
        uint64_t allocations
        uint64_t from_front_cache
        uint64_t from_own_stream
        uint64_t from_ready
        uint64_t from_other_stream
        uint64_t from_upstream
        uint64_t from_reclaim
        uint64_t waits
        uint64_t events
        uint64_t upstream_allocations
        uint64_t upstream_frees
        uint64_t pages_moved
    cdef enum class pin_kind:
        captured
    cdef struct pool_pin:
        const void* address
        size_t bytes
        pin_kind kind
        size_t count
    pin_kind parse_pin_kind(string name) except +raise_python_error
    const char* spell_pin_kind(pin_kind kind)
    cdef struct pool_spare:
        bool is_tight
        optional[milliseconds] idle
    cdef cppclass pool_memory_resource(memory_resource):
        pool_memory_resource(shared_ptr[memory_resource], optional[size_t], optional[size_t],
                             pool_spare) except +raise_python_error
        size_t pool_size() except +raise_python_error
        pool_counters counters() except +raise_python_error
        void pin(const void* pointer, pin_kind kind) except +raise_python_error
        void unpin(const void* pointer, pin_kind kind) except +raise_python_error
        vector[pool_pin] pins() except +raise_python_error


cdef extern from "cenote/resources/callback_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass callback_memory_resource(memory_resource):
        callback_memory_resource(allocate_function, deallocate_function) except +raise_python_error


cdef extern from "cenote/resources/arena_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass arena_memory_resource(memory_resource):
        arena_memory_resource(shared_ptr[memory_resource], optional[size_t], bool) except +raise_python_error
        size_t arena_size()


cdef extern from "cenote/resources/fixed_size_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass fixed_size_memory_resource(memory_resource):
        fixed_size_memory_resource(shared_ptr[memory_resource], size_t, size_t) except +raise_python_error
        size_t block_size()


cdef extern from "cenote/resources/binning_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass binning_memory_resource(memory_resource):
        binning_memory_resource(shared_ptr[memory_resource]) except +raise_python_error
        binning_memory_resource(shared_ptr[memory_resource], int, int) except +raise_python_error
        void add_bin(size_t bytes, shared_ptr[memory_resource]) except +raise_python_error


cdef extern from "cenote/adaptors/counting_scope.hpp" namespace "cenote" nogil:
    cdef struct counter:
        int64_t current
        int64_t peak
        int64_t total
    cdef struct allocation_counters:
        counter bytes
        counter count
    cdef cppclass counting_scope:
        bool is_open()
        allocation_counters counters() except +raise_python_error
        allocation_counters close() except +raise_python_error
    ctypedef vector[shared_ptr[counting_scope]] counting_scopes


cdef extern from "python_scopes.hpp" namespace "cenote":
    void find_python_scopes(int (*read)(counting_scopes*) except -1)
    void forget_scopes()


cdef extern from "cenote/adaptors/statistics_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass statistics_resource_adaptor(memory_resource):
        statistics_resource_adaptor(shared_ptr[memory_resource]) except +raise_python_error
        allocation_counters counters() except +raise_python_error
        allocation_counters push_counters() except +raise_python_error
        allocation_counters pop_counters() except +raise_python_error
        shared_ptr[counting_scope] open_scope() except +raise_python_error
        bool owns(const counting_scope& scope)


cdef extern from "cenote/ground/environment.hpp" namespace "cenote" nogil:
    const char* environment_variable(const char* name)
    bool is_secure_execution()


cdef extern from "cenote/ground/output_file.hpp" namespace "cenote" nogil:
    cdef cppclass opened_file:
        int descriptor
        bool is_inherited
        int error
        string why
    opened_file open_for_writing(const string& path) except +raise_python_error


cdef extern from "cenote/adaptors/logging_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass logging_resource_adaptor(memory_resource):
        logging_resource_adaptor(shared_ptr[memory_resource], string) except +raise_python_error
        void flush() except +raise_python_error
        const string& file_name()


cdef extern from "cenote/adaptors/tracking_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass tracking_resource_adaptor(memory_resource):
        tracking_resource_adaptor(shared_ptr[memory_resource], bool, interpreter) except +raise_python_error
        size_t allocated_bytes() except +raise_python_error
        string outstanding_allocations_str() except +raise_python_error
        string leak_report() except +raise_python_error


cdef extern from "cenote/adaptors/limiting_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass limiting_resource_adaptor(memory_resource):
        limiting_resource_adaptor(shared_ptr[memory_resource], size_t, size_t) except +raise_python_error
        size_t allocated_bytes()
        size_t allocation_limit()


cdef extern from "cenote/adaptors/failure_callback_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass failure_callback "cenote::failure_callback_resource_adaptor::callback":
        pass
    cdef cppclass failure_callback_resource_adaptor(memory_resource):
        failure_callback_resource_adaptor(shared_ptr[memory_resource], failure_callback,
                                          size_t) except +raise_python_error

ctypedef bool (*failure_callback_body)(object, size_t, stream_ref, size_t) except *

cdef extern from "python_callable.hpp" namespace "cenote":
    failure_callback python_function(shared_ptr[python_object], failure_callback_body) except +raise_python_error


cdef extern from "cenote/adaptors/prefetch_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass prefetch_resource_adaptor(memory_resource):
        prefetch_resource_adaptor(shared_ptr[memory_resource]) except +raise_python_error


cdef extern from "cenote/adaptors/aligned_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass aligned_resource_adaptor(memory_resource):
        aligned_resource_adaptor(shared_ptr[memory_resource], size_t, size_t) except +raise_python_error


cdef extern from "cenote/adaptors/guard_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass overrun:
        string text() except +raise_python_error
    cdef cppclass guard_resource_adaptor(memory_resource):
        guard_resource_adaptor(shared_ptr[memory_resource], size_t) except +raise_python_error
        vector[overrun] find_overruns() except +raise_python_error
        uint64_t overruns_found()
        size_t guard_bytes()


cdef extern from "cenote/adaptors/thread_safe_resource_adaptor.hpp" namespace "cenote" nogil:
    cdef cppclass thread_safe_resource_adaptor(memory_resource):
        thread_safe_resource_adaptor(shared_ptr[memory_resource]) except +raise_python_error


cdef extern from "cenote/containers/device_buffer.hpp" namespace "cenote" nogil:
    cdef cppclass device_buffer:
        device_buffer(size_t bytes, stream_ref stream, shared_ptr[memory_resource]) except +raise_python_error
        device_buffer(const void* source, size_t bytes, stream_ref stream,
                      shared_ptr[memory_resource]) except +raise_python_error
        device_buffer(device_buffer&&)
        stream_ref stream()
        void* data()
        size_t size()
        size_t capacity()
        int device()
        const shared_ptr[memory_resource]& resource()
        const kept_stream& kept()
        void set_stream(stream_ref stream)
        void begin_use(stream_ref stream) except +raise_python_error
        void begin_use(stream_ref stream, int device) except +raise_python_error
        void end_use(stream_ref stream, int device) except +raise_python_error
        void synchronize() except +raise_python_error
        void resize(size_t size, stream_ref stream) except +raise_python_error
        void close()
        bool open_at_once(size_t bytes)
        bool close_at_once()
        void* release()


# Cython's own declaration lets nothing that a constructor throws through.
cdef extern from "<optional>" nogil:
    cdef cppclass optional_device_buffer "std::optional<cenote::device_buffer>":
        bool has_value()
        device_buffer& operator*()
        void emplace(size_t bytes, stream_ref stream, shared_ptr[memory_resource]) except +raise_python_error
        void emplace(const void* source, size_t bytes, stream_ref stream,
                     shared_ptr[memory_resource]) except +raise_python_error
        void emplace(const device_buffer& other, size_t capacity, stream_ref stream) except +raise_python_error
        void emplace(device_buffer)  # which is moved into it
        void reset()
        void swap(optional_device_buffer&)


cdef extern from "cenote/surface/resource_place.hpp" namespace "cenote" nogil:
    cdef cppclass resource_hold:
        bool is_empty()
        const shared_ptr[memory_resource]& resource()
        bool drop_unless_last()
        void drop()
        void swap(resource_hold&)
    resource_hold find_resource_hold(int device) except +raise_python_error
    resource_hold get_resource_hold(int device) except +raise_python_error


cdef extern from "cenote/surface/reclaimer.hpp" namespace "cenote" nogil:
    cdef enum class reach(int):
        its_device
        every_device
    cdef cppclass reclaimer:
        @staticmethod
        reclaimer& of(int device) except +raise_python_error
        void free_after_all_work(shared_ptr[memory_resource] resource, void* pointer, size_t bytes,
                                 stream_ref freed_on, reach used_by)


cdef extern from "cenote/surface/block_offer.hpp" namespace "cenote" nogil:
    cdef cppclass hold_function "cenote::block_offer::hold_function":
        pass
    cdef cppclass block_offer:
        const void* address()
        size_t bytes()
        const string& handle()
        void share_again(stream_ref stream) except +raise_python_error
    block_offer* new_block_offer "new cenote::block_offer"(
        const void* address, size_t bytes, stream_ref stream, shared_ptr[memory_resource] resource,
        hold_function hold) except +raise_python_error


cdef extern from "cenote/surface/opened_memory_resource.hpp" namespace "cenote" nogil:
    cdef cppclass opened_memory_resource(memory_resource):
        size_t bytes()
    shared_ptr[opened_memory_resource] open_memory_resource "std::make_shared<cenote::opened_memory_resource>"(
        const string& handle) except +raise_python_error


cdef extern from "python_hold.hpp" namespace "cenote":
    hold_function python_hold(object function) except +
    PyObject* reference_if_alive(PyObject* object) noexcept
    void drop_reference "Py_DECREF"(PyObject* object) noexcept


cdef extern from "cenote/surface/registry.hpp" namespace "cenote" nogil:
    shared_ptr[memory_resource] find_per_device_resource(int device) except +raise_python_error
    shared_ptr[memory_resource] get_per_device_resource(int device) except +raise_python_error
    shared_ptr[memory_resource] set_per_device_resource(
        int device, shared_ptr[memory_resource]) except +raise_python_error
    void install_all_devices "cenote::install_resource"(const string& specification) except +raise_python_error
    void install_on_device "cenote::install_resource"(int device, const string&) except +raise_python_error
    void keep_to_device(int device) except +raise_python_error
    string default_specification() except +raise_python_error
    void set_default_specification(const string& specification) except +raise_python_error
    shared_ptr[memory_resource] get_current_device_resource() except +raise_python_error
    shared_ptr[memory_resource] set_current_device_resource(
        shared_ptr[memory_resource]) except +raise_python_error
    shared_ptr[memory_resource] reset_per_device_resource(int device) except +raise_python_error
    shared_ptr[memory_resource] reset_current_device_resource() except +raise_python_error
    void reset_all_device_resources() except +raise_python_error
    vector[int] devices_with_resource() except +raise_python_error
    const void* registry_address()


cdef extern from "cenote/surface/resource_scope.hpp" namespace "cenote" nogil:
    cdef cppclass resource_scope:
        resource_scope(shared_ptr[memory_resource]) except +raise_python_error
        bool is_innermost() noexcept


cdef extern from "cenote/surface/region.hpp" namespace "cenote" nogil:
    shared_ptr[memory_resource] get_region(const string& name, int device, const string& specification) \
        except +raise_python_error
    vector[shared_ptr[memory_resource]] region_resources(const string& name) except +raise_python_error
    vector[string] region_names() except +raise_python_error


cdef extern from "cenote/surface/captures.hpp" namespace "cenote" nogil:
    cppclass graph_pool_number "cenote::graph_pool::number":
        graph_pool_number(uint64_t first, uint64_t second)
    void begin_capture_into(int device, graph_pool_number pool, stream_ref stream) except +raise_python_error
    void end_capture_into(int device, graph_pool_number pool) except +raise_python_error
    void release_graph_pool(int device, graph_pool_number pool) except +raise_python_error

cdef extern from "cenote/surface/pause.hpp" namespace "cenote" nogil:
    size_t pause_resource "cenote::pause"(
        const shared_ptr[memory_resource]& resource, const string& keep) except +raise_python_error
    size_t resume_resource "cenote::resume"(const shared_ptr[memory_resource]& resource) except +raise_python_error
    size_t pause_region(const string& name, const string& keep) except +raise_python_error
    cppclass region_pause:
        string region
        string keep
    size_t pause_regions(const vector[region_pause]& regions) except +raise_python_error
    size_t resume_region(const string& name) except +raise_python_error
    size_t pause_all(const string& keep) except +raise_python_error
    size_t resume_all() except +raise_python_error
    bool is_paused(const shared_ptr[memory_resource]& resource) except +raise_python_error
    size_t paused_bytes(const shared_ptr[memory_resource]& resource) except +raise_python_error
    bool read_paused(
        const shared_ptr[memory_resource]& resource, void* to, const void* address, size_t bytes
    ) except +raise_python_error
    size_t keep_pinned_at_most(size_t bytes) except +raise_python_error
    size_t kept_pinned_bytes() except +raise_python_error


cdef extern from "cenote/ground/quoted.hpp" namespace "cenote" nogil:
    string quoted(const string& text, const char* separators) except +raise_python_error


cdef extern from "cenote/surface/specification.hpp" namespace "cenote" nogil:
    shared_ptr[memory_resource] make_resource(const string& specification, int device) except +raise_python_error
    void check_specification(const string& specification) except +raise_python_error
    vector[string] specification_words(const string& specification, optional[int] device) except +raise_python_error
    string known_specifications() except +raise_python_error


cdef extern from "cenote/surface/client.hpp" namespace "cenote" nogil:
    cdef cppclass client_usage:
        string name
        uint64_t bytes
        uint64_t peak_bytes
        uint64_t allocations
        uint64_t total_allocations
    int register_client(const string& name) except +raise_python_error
    vector[client_usage] usage() except +raise_python_error
    vector[client_usage] usage_by_tag() except +raise_python_error


cdef extern from "cenote/surface/tag.hpp" namespace "cenote" nogil:
    uint16_t register_tag(const string& name) except +raise_python_error


cdef extern from "python_tags.hpp" namespace "cenote":
    void find_python_tags(int (*)() except -1) noexcept
    void forget_tag() noexcept


cdef extern from "cenote/ground/flight_recorder.hpp" namespace "cenote::recorder" nogil:
    string copy_region "cenote::recorder::copy"(int device) except +raise_python_error
    string file_of_region "cenote::recorder::file_of"(int device) except +raise_python_error
    size_t bytes_of_a_region() noexcept
    void set_recording(bool on) noexcept


cdef extern from "cenote/ground/pressure.hpp" namespace "cenote" nogil:
    cdef cppclass pressure_handler_figures:
        uint64_t id
        string name
        int priority
        uint64_t calls
        uint64_t skipped
        uint64_t failures
        uint64_t successes
        uint64_t freed_bytes
    bool remove_pressure_handler(uint64_t handler) noexcept
    vector[pressure_handler_figures] pressure_handlers() except +raise_python_error


cdef extern from "python_pressure.hpp" namespace "cenote" nogil:
    cdef cppclass pressure_request:
        uint64_t handler
        size_t bytes
        int device
    uint64_t add_python_handler(const string& name, uint64_t number, int priority,
                                double seconds) except +raise_python_error
    shared_ptr[pressure_request] wait_for_pressure() except +raise_python_error
    void answer_pressure(pressure_request& request, int64_t freed, const string& why) except +raise_python_error
    void open_pressure_desk() except +raise_python_error
    void close_pressure_desk() except +raise_python_error
    void renew_pressure_desk() except +raise_python_error


cdef extern from "cenote/surface/blocks_by_address.hpp" namespace "cenote" nogil:
    string share_address(int device, const void* address, size_t bytes, stream_ref stream) except +raise_python_error
    bool unshare_address(const void* address) except +raise_python_error


cdef extern from "cenote/surface/allocation_ledger.hpp" namespace "cenote" nogil:
    cdef cppclass caller_lock:
        caller_lock()
    void* client_allocate(int client, int device, size_t bytes, stream_ref stream,
                          caller_lock held) except +raise_python_error
    bool client_deallocate(void* pointer, stream_ref stream, caller_lock held) noexcept
    void client_holds(int client, int device, const void* pointer, size_t bytes, stream_ref stream) noexcept
    void client_lets_go(int client, int device, const void* pointer, size_t bytes) noexcept
    cdef cppclass held_block:
        uintptr_t address
        size_t bytes
        uint64_t stream
        int client
        uint16_t tag
        int device
    vector[held_block] held_blocks(optional[int] device) except +raise_python_error
    void client_record_stream(void* pointer, stream_ref stream) except +raise_python_error
    void client_share(void* pointer)


cdef extern from "python_lock.hpp" namespace "cenote":
    caller_lock interpreter_lock() noexcept
