// CUDA tensors for a CPU build of torch: tensors whose device is "cuda" and whose memory is the host's.
//
// torch dispatches operations on them as those of a GPU; the kernels registered here run torch's CPU kernels on the same
// memory. Views, allocations and copies cost about what they cost on a GPU's host; all others are small in an engine whose
// work is in Triton kernels. Operations, and copies between the devices, are counted, and named while a log is kept.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/TensorFactories.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <bit>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

extern "C" {
int fake_device_count(void);
int fake_device(void);
void fake_set_device(int);
uint64_t fake_stream(int);
void fake_set_stream(int, uint64_t);
int fake_capturing(uint64_t);
}

namespace {

using c10::Device;
using c10::DeviceType;
using c10::DispatchKey;
using c10::DispatchKeySet;

// Memory, 512-byte aligned as on a GPU. Small blocks are zeros, so that a table that a kernel would have filled holds valid
// indices. Large ones are kept and given out again, as torch does on a GPU, since the system takes microseconds for one.

constexpr size_t kAlignment = 512, kLarge = 64 << 10, kMoved = 128 << 10;
std::atomic<int64_t> allocated{0}, peak{0};
std::mutex blocks_lock;
std::unordered_map<size_t, std::vector<void*>> blocks; // free ones, by size

struct Block {
  void* base;
  size_t size;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  allocated -= block->size;
  if (block->size < kLarge) {
    free(block->base);
  } else if (block->size <= 1 << 30) {
    std::lock_guard<std::mutex> guard(blocks_lock);
    blocks[block->size].push_back(block->base);
  } else {
    munmap(block->base, block->size);
  }
  delete block;
}

void* obtain(size_t size) {
  if (size < kLarge) return calloc(1, size);
  {
    std::lock_guard<std::mutex> guard(blocks_lock);
    auto& free_blocks = blocks[size];
    if (!free_blocks.empty()) {
      void* base = free_blocks.back();
      free_blocks.pop_back();
      return base;
    }
  }
  // Never touched unless used: a cache of 100 GB fits.
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK(base != MAP_FAILED, "fake GPU: no address space for ", size, " bytes");
  return base;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    Device device(DeviceType::CPU);
    if (size == 0) return {nullptr, nullptr, &release, device};
    size_t whole = size + kAlignment;
    if (whole >= kLarge) { // in few sizes, so that most are found again
      size_t step = std::bit_floor(whole) / 8;
      whole = (whole + step - 1) / step * step;
    }
    void* base = obtain(whole);
    int64_t now = allocated += whole;
    if (now > peak) peak = now;
    auto address = (reinterpret_cast<uintptr_t>(base) + kAlignment - 1) / kAlignment * kAlignment;
    return {reinterpret_cast<void*>(address), new Block{base, whole}, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t count) const override { memcpy(to, from, count); }
};
DeviceAllocator device_allocator;

// Pinned memory: the CPU's, its addresses remembered.

std::mutex pinned_lock;
std::set<std::pair<uintptr_t, uintptr_t>> pinned; // first and past-the-last address

std::unordered_map<size_t, std::vector<void*>> unpinned; // free ones by size, kept as torch keeps them

void unpin(void* base) {
  auto first = reinterpret_cast<uintptr_t>(base);
  std::lock_guard<std::mutex> guard(pinned_lock);
  auto found = pinned.lower_bound({first, 0});
  if (found == pinned.end()) return;
  unpinned[found->second - first].push_back(base);
  pinned.erase(found);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    size = std::max<size_t>(std::bit_ceil(size), 64);
    std::lock_guard<std::mutex> guard(pinned_lock);
    auto& kept = unpinned[size];
    void* base = kept.empty() ? aligned_alloc(64, size) : kept.back();
    if (!kept.empty()) kept.pop_back();
    auto first = reinterpret_cast<uintptr_t>(base);
    pinned.insert({first, first + size});
    return {base, base, &unpin, Device(DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t count) const override { memcpy(to, from, count); }
};
PinnedAllocator pinned_allocator;

bool is_pinned(const void* data) {
  auto address = reinterpret_cast<uintptr_t>(data);
  std::lock_guard<std::mutex> guard(pinned_lock);
  auto after = pinned.upper_bound({address, UINTPTR_MAX});
  if (after == pinned.begin()) return false;
  --after;
  return after->first <= address && address < after->second;
}

struct Hooks final : at::CUDAHooksInterface {
  Hooks() = default;
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_allocator; }
  int getNumGPUs() const override { return fake_device_count(); }
  c10::DeviceIndex deviceCount() const override { return static_cast<c10::DeviceIndex>(fake_device_count()); }
  c10::DeviceIndex current_device() const override { return static_cast<c10::DeviceIndex>(fake_device()); }
  c10::DeviceIndex getCurrentDevice() const override { return static_cast<c10::DeviceIndex>(fake_device()); }
  void setCurrentDevice(c10::DeviceIndex device) const override { fake_set_device(device); }
  void deviceSynchronize(c10::DeviceIndex) const override {}
  Device getDeviceFromPtr(void*) const override { return Device(DeviceType::CUDA, 0); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device device) const override {
    Device before = getDevice();
    fake_set_device(device.index());
    return before;
  }
  Device getDevice() const override {
    return Device(DeviceType::CUDA, static_cast<c10::DeviceIndex>(fake_device()));
  }
  void setDevice(Device device) const override { fake_set_device(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override { fake_set_device(device.index()); }
  c10::Stream getStream(Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, static_cast<c10::StreamId>(fake_stream(device.index())));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    c10::Stream before = getStream(stream.device());
    fake_set_stream(stream.device_index(), static_cast<uint64_t>(stream.id()));
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(fake_device_count());
  }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};

// Counts.

std::atomic<uint64_t> operations{0}, copies{0}, blocking{0};
std::mutex log_lock;
bool logging = false;
std::vector<std::string> log_;

std::atomic<uint64_t> computed{0}; // nanoseconds of threads in operations on large tensors
constexpr int64_t kComputed = 1 << 14;
uint64_t thread_time() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1000000000ull + now.tv_nsec;
}

void count(const std::string& name) {
  operations++;
  if (!logging) return;
  std::lock_guard<std::mutex> guard(log_lock);
  log_.push_back(name);
}

PyObject* on_wait = nullptr; // called with the name of each operation that waits, in its own thread

void count_wait(const std::string& name) {
  TORCH_CHECK(!fake_capturing(fake_stream(fake_device())),
              "CUDA error: operation not permitted when stream is capturing (", name, ")");
  blocking++;
  if (on_wait != nullptr) {
    PyGILState_STATE state = PyGILState_Ensure();
    if (on_wait != nullptr) Py_XDECREF(PyObject_CallFunction(on_wait, "s", name.c_str()));
    PyErr_Clear();
    PyGILState_Release(state);
  }
  if (!logging) return;
  std::lock_guard<std::mutex> guard(log_lock);
  log_.push_back("blocking " + name);
}

// Tensors.

// A storage is always the host's, so that views which the CPU's kernels make are too; the device is in the tensor.
struct DeviceTensor final : c10::TensorImpl {
  DeviceTensor(c10::Storage storage, caffe2::TypeMeta dtype, Device device)
      : c10::TensorImpl(std::move(storage), DispatchKeySet(DispatchKey::CUDA), dtype) {
    put_on(device);
  }
  DeviceTensor(const at::Tensor& base, caffe2::TypeMeta dtype) // a view: in inference mode too it is what its base is
      : c10::TensorImpl(c10::TensorImpl::VIEW, c10::Storage(base.storage()), base.key_set(), dtype) {
    put_on(base.device());
  }
  void put_on(Device device) {
    device_opt_ = device.has_index() ? device : Device(DeviceType::CUDA, static_cast<c10::DeviceIndex>(fake_device()));
  }
};

at::Tensor view_of(const at::Tensor& base, caffe2::TypeMeta dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides,
                   int64_t offset) {
  auto impl = c10::make_intrusive<DeviceTensor>(base, dtype);
  impl->set_sizes_and_strides(sizes, strides, offset);
  return at::Tensor(std::move(impl));
}

at::Tensor on_host(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      c10::Storage(tensor.storage()), DispatchKeySet(DispatchKey::CPU), tensor.dtype());
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  auto alias = at::Tensor(std::move(impl));
  if (tensor.is_conj()) alias._set_conj(true);
  if (tensor.is_neg()) alias._set_neg(true);
  return alias;
}

// Kernels that are not the CPU's.

c10::intrusive_ptr<DeviceTensor> allocate(size_t bytes, std::optional<c10::ScalarType> dtype,
                                          std::optional<Device> device) {
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, &device_allocator, /*resizable=*/true);
  return c10::make_intrusive<DeviceTensor>(
      c10::Storage(std::move(storage)), c10::scalarTypeToTypeMeta(c10::dtype_or_default(dtype)),
      device.value_or(Device(DeviceType::CUDA)));
}

at::Tensor fake_empty(c10::IntArrayRef sizes, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                      std::optional<Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  size_t size = c10::elementSize(c10::dtype_or_default(dtype));
  for (int64_t length : sizes) size *= length;
  auto impl = allocate(size, dtype, device);
  impl->set_sizes_contiguous(sizes);
  if (format && *format != c10::MemoryFormat::Contiguous && *format != c10::MemoryFormat::Preserve) {
    impl->empty_tensor_restride(*format);
  }
  return at::Tensor(std::move(impl));
}

at::Tensor fake_empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<c10::ScalarType> dtype,
                              std::optional<c10::Layout>, std::optional<Device> device, std::optional<bool>) {
  size_t size = c10::elementSize(c10::dtype_or_default(dtype));
  auto impl = allocate(at::detail::computeStorageNbytes(sizes, strides, size), dtype, device);
  impl->set_sizes_and_strides(sizes, strides);
  return at::Tensor(std::move(impl));
}

at::Tensor& fake_copy(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  bool crossing = self.device().type() != source.device().type();
  if (crossing) {
    copies++;
    const at::Tensor& host = self.is_cuda() ? source : self;
    // As on a GPU: a copy from or to pageable memory waits, whatever was asked for.
    if (host.numel() && (!non_blocking || !is_pinned(host.data_ptr()))) count_wait("copy_");
  } else {
    count("copy_");
  }
  // A GPU's copy engine moves pinned memory by itself, so that the host spends no time on recordings. Tables of indices
  // arrive: torch's operations check them, and a memory block that is given out again holds others.
  bool index = source.scalar_type() == at::kLong || source.scalar_type() == at::kInt;
  if (crossing && self.is_cuda() && non_blocking && !index && source.nbytes() >= kMoved && is_pinned(source.data_ptr()))
    return self;
  bool large = source.numel() >= kComputed;
  uint64_t before = large ? thread_time() : 0;
  auto to = on_host(self), from = on_host(source);
  to.copy_(from);
  if (large) computed += thread_time() - before;
  return self;
}

at::Tensor& fake_zero(at::Tensor& self) {
  count("zero_");
  size_t size = self.numel() * self.element_size();
  if (!self.is_contiguous() || size < (1 << 20)) {
    on_host(self).zero_();
    return self;
  }
  // Whole pages are given back, and read as zeros: a cache of 100 GB takes no memory.
  constexpr uintptr_t page = 4096;
  auto first = reinterpret_cast<uintptr_t>(self.data_ptr()), last = first + size;
  auto from = (first + page - 1) / page * page, to = last / page * page;
  memset(reinterpret_cast<void*>(first), 0, from - first);
  memset(reinterpret_cast<void*>(to), 0, last - to);
  madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
  return self;
}

c10::Scalar fake_item(const at::Tensor& self) {
  copies++;
  count_wait("item");
  return on_host(self).item();
}

at::Tensor fake_as_strided(const at::Tensor& self, c10::IntArrayRef sizes, c10::IntArrayRef strides,
                           std::optional<int64_t> offset) {
  return view_of(self, self.dtype(), sizes, strides, offset.value_or(self.storage_offset()));
}

// All others: the CPU's kernel over aliases, whose results become the device's.

const std::set<std::string> kViews = {
    "aten::view", "aten::_reshape_alias", "aten::unfold", "aten::alias", "aten::view_as_real", "aten::set_",
    "aten::resize_", "aten::view.dtype", "aten::_unsafe_view"};
const std::set<std::string> kWaits = {
    "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim", "aten::bincount"};

// A mask among the indices must be counted, and so must the rows of a repetition whose number is not given.
bool waits(const std::string& name, const torch::jit::Stack& stack, size_t begin) {
  const std::string base = name.substr(0, name.find('.'));
  if (kWaits.count(base)) return true;
  if (name == "aten::repeat_interleave.Tensor") return stack[begin + 1].isNone();
  if (base != "aten::index" && base != "aten::index_put" && base != "aten::index_put_" &&
      base != "aten::_index_put_impl_") {
    return false;
  }
  for (const auto& index : stack[begin + 1].toOptionalTensorVector()) {
    if (index && (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte)) return true;
  }
  return false;
}

void fallback(const c10::OperatorHandle& op, DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t begin = stack->size() - schema.arguments().size();
  std::vector<std::pair<at::Tensor, at::Tensor>> aliases; // the device's, the host's
  Device device(DeviceType::CUDA);
  auto lend = [&](const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    device = tensor.device();
    aliases.emplace_back(tensor, on_host(tensor));
    return aliases.back().second;
  };
  for (size_t index = begin; index < stack->size(); index++) {
    auto& value = (*stack)[index];
    if (value.isTensor()) {
      value = lend(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(lend(tensor));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<at::Tensor>(lend(*tensor)) : std::nullopt);
      }
      value = list;
    } else if (value.isDevice()) {
      if (value.toDevice().has_index()) device = value.toDevice();
      value = Device(DeviceType::CPU);
    } else if (schema.arguments()[index - begin].name() == "pin_memory") {
      value = c10::IValue();
    }
  }
  auto name = toString(op.operator_name());
  if (!kViews.count(name)) count(name.substr(6));
  if (waits(name, *stack, begin)) count_wait(name.substr(6));
  bool large = false; // what a GPU would compute by itself takes time here; small ones take less than the clock
  for (const auto& [original, alias] : aliases) large |= original.numel() >= kComputed;
  uint64_t before = large ? thread_time() : 0;
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  if (large) computed += thread_time() - before;

  auto own = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (const auto& [original, alias] : aliases) {
      if (alias.unsafeGetTensorImpl() == tensor.unsafeGetTensorImpl()) return original;
    }
    for (const auto& [original, alias] : aliases) {
      if (original.is_alias_of(tensor)) {
        return view_of(original, tensor.dtype(), tensor.sizes(), tensor.strides(), tensor.storage_offset());
      }
    }
    auto impl = c10::make_intrusive<DeviceTensor>(c10::Storage(tensor.storage()), tensor.dtype(), device);
    impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    return at::Tensor(std::move(impl));
  };
  for (const auto& [original, alias] : aliases) { // an output that was resized
    if (alias.sizes() != original.sizes() || alias.strides() != original.strides()) {
      original.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
    }
  }
  for (size_t index = stack->size() - schema.returns().size(); index < stack->size(); index++) {
    auto& value = (*stack)[index];
    if (value.isTensor()) {
      value = own(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(own(tensor));
      value = list;
    }
  }
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &fake_empty);
  library.impl("empty_strided", &fake_empty_strided);
  library.impl("copy_", &fake_copy);
  library.impl("zero_", &fake_zero);
  library.impl("_local_scalar_dense", &fake_item);
  library.impl("as_strided", &fake_as_strided);
  // torch's own kernels of these, for all devices, make a view on its storage's device, which is the host.
  for (const char* name :
       {"alias", "view.dtype", "view_as_real", "view_as_complex", "_conj", "_neg_view", "_unsafe_view"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
}

// The C functions of torch.cuda.

PyObject* get_device(PyObject*, PyObject*) { return PyLong_FromLong(fake_device()); }
PyObject* set_device(PyObject*, PyObject* device) {
  fake_set_device(static_cast<int>(PyLong_AsLong(device)));
  Py_RETURN_NONE;
}
PyObject* exchange_device(PyObject*, PyObject* device) { // a negative one stands for the current
  long before = fake_device(), asked = PyLong_AsLong(device);
  if (asked >= 0) fake_set_device(static_cast<int>(asked));
  return PyLong_FromLong(asked >= 0 ? before : -1);
}
PyObject* raw_stream(PyObject*, PyObject* device) {
  return PyLong_FromUnsignedLongLong(fake_stream(static_cast<int>(PyLong_AsLong(device))));
}
PyObject* counts(PyObject*, PyObject*) {
  return Py_BuildValue("(KKK)", (unsigned long long)operations, (unsigned long long)copies, (unsigned long long)blocking);
}
PyObject* computing(PyObject*, PyObject*) { return PyFloat_FromDouble(computed * 1e-9); }
PyObject* memory(PyObject*, PyObject* reset) {
  if (reset == Py_True) peak = allocated.load();
  return Py_BuildValue("(LL)", (long long)allocated, (long long)peak);
}
PyObject* set_on_wait(PyObject*, PyObject* callback) { // None for none
  PyObject* before = on_wait;
  on_wait = callback == Py_None ? nullptr : Py_NewRef(callback);
  Py_XDECREF(before);
  Py_RETURN_NONE;
}
PyObject* set_log(PyObject*, PyObject* on) {
  std::lock_guard<std::mutex> guard(log_lock);
  logging = on == Py_True;
  PyObject* names = PyList_New(0);
  for (const auto& name : log_) {
    PyObject* text = PyUnicode_FromString(name.c_str());
    PyList_Append(names, text);
    Py_DECREF(text);
  }
  log_.clear();
  return names;
}
PyObject* begin(PyObject*, PyObject*) {
  // torch looks for its hooks once, and a CPU build may have found none by now: replace what it has.
  static Hooks hooks;
  auto& known = const_cast<at::CUDAHooksInterface&>(at::detail::getCUDAHooks());
  *reinterpret_cast<void**>(&known) = *reinterpret_cast<void**>(&hooks);
  static Guard guard;
  static c10::impl::DeviceGuardImplRegistrar registrar(DeviceType::CUDA, &guard);
  c10::SetAllocator(DeviceType::CUDA, &device_allocator);
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"begin", begin, METH_NOARGS, nullptr},
    {"get_device", get_device, METH_NOARGS, nullptr},
    {"set_device", set_device, METH_O, nullptr},
    {"exchange_device", exchange_device, METH_O, nullptr},
    {"raw_stream", raw_stream, METH_O, nullptr},
    {"counts", counts, METH_NOARGS, nullptr},
    {"computing", computing, METH_NOARGS, nullptr},
    {"memory", memory, METH_O, nullptr},
    {"log", set_log, METH_O, nullptr},
    {"on_wait", set_on_wait, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "fake_tensors", nullptr, -1, methods};

} // namespace

PyMODINIT_FUNC PyInit_fake_tensors(void) { return PyModule_Create(&definition); }
