// A stand-in for NVIDIA's driver library (libcuda.so.1) of two H200s whose kernels take no time.
//
// Triton's own driver, its launchers and its key are used as they are: a launch takes the way that it takes on a GPU up to
// cuLaunchKernelEx, which counts it and does nothing. Device memory is host memory, so an address is valid on both sides.

#include <cuda.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 2

typedef struct {
  int device;
  int capturing;
} Stream;

typedef struct {
  char *name;
} Function;

typedef struct {
  const char *kernel;
  int device;
  uint64_t stream;
} Launch;

static struct { int device; } contexts[DEVICES] = {{0}, {1}};
static _Thread_local int current_device = 0;
static _Thread_local uint64_t current_streams[DEVICES] = {0};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t launched = 0;
static Launch *log_ = NULL; // of launches, while one is kept
static size_t logged = 0, room = 0;
static int logging = 0;

// For Python's side.

int fake_device_count(void) { return DEVICES; }
int fake_device(void) { return current_device; }
void fake_set_device(int device) { current_device = device; }
uint64_t fake_stream(int device) { return current_streams[device]; }
void fake_set_stream(int device, uint64_t stream) { current_streams[device] = stream; }
uint64_t fake_new_stream(int device) {
  Stream *stream = calloc(1, sizeof(Stream));
  stream->device = device;
  return (uint64_t)stream;
}
int fake_stream_device(uint64_t stream) { return stream ? ((Stream *)stream)->device : current_device; }
void fake_set_capturing(uint64_t stream, int on) { ((Stream *)stream)->capturing = on; }
int fake_capturing(uint64_t stream) { return stream ? ((Stream *)stream)->capturing : 0; }
uint64_t fake_launched(void) { return __atomic_load_n(&launched, __ATOMIC_RELAXED); }
void fake_log(int on) {
  pthread_mutex_lock(&lock);
  logging = on;
  logged = 0;
  pthread_mutex_unlock(&lock);
}
size_t fake_logged(void) { return logged; }
const char *fake_logged_kernel(size_t index) { return log_[index].kernel; }
int fake_logged_device(size_t index) { return log_[index].device; }
uint64_t fake_logged_stream(size_t index) { return log_[index].stream; }

// The driver's interface, as far as Triton uses it.

CUresult cuInit(unsigned int flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = DEVICES; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (ordinal < 0 || ordinal >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 227 << 10; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = 228 << 10; break;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
  case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1980000; break;
  case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 3201000; break;
  case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 6144; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
  default: *value = 0;
  }
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) { *context = (CUcontext)&contexts[current_device]; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) {
  if (context) current_device = ((int *)context)[0];
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) { *device = current_device; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  *context = (CUcontext)&contexts[device];
  return CUDA_SUCCESS;
}
CUresult cuCtxGetLimit(size_t *value, CUlimit limit) { *value = 0; return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_SUCCESS; }
CUresult cuModuleLoadData(CUmodule *module, const void *image) { *module = (CUmodule)malloc(1); return CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule module) { free(module); return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  Function *made = malloc(sizeof(Function)); // kept: a log may name it after its module is gone
  made->name = strdup(name);
  *function = (CUfunction)made;
  return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == CUDA_ERROR_INVALID_HANDLE ? "invalid resource handle: a stream of another device" : "error";
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  *(CUdeviceptr *)data = pointer;
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **data, CUdeviceptr pointer) {
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveClusters(int *clusters, CUfunction function, const CUlaunchConfig *config) {
  *clusters = 1;
  return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  *status = fake_capturing((uint64_t)stream) ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
  uint64_t stream = (uint64_t)config->hStream;
  if (fake_stream_device(stream) != current_device) return CUDA_ERROR_INVALID_HANDLE;
  __atomic_fetch_add(&launched, 1, __ATOMIC_RELAXED);
  if (!logging) return CUDA_SUCCESS;
  pthread_mutex_lock(&lock);
  if (logged == room) {
    room = room ? 2 * room : 1024;
    log_ = realloc(log_, room * sizeof(Launch));
  }
  log_[logged++] = (Launch){((Function *)function)->name, current_device, stream};
  pthread_mutex_unlock(&lock);
  return CUDA_SUCCESS;
}
