/* A tool as NVTX injects it, which writes down what it is told: one line a call, to the file that NVTX_RECORD names.
 *
 * Sources: the types of <nvtx3/nvToolsExt.h> and <nvtx3/nvToolsExtMem.h>; NVTX loads it by NVTX_INJECTION64_PATH.
 * With NVTX_RECORD_MEMORY set it listens to the memory extension, too, as compute-sanitizer does.
 */
#include <nvtx3/nvToolsExtMem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char domain_name[64];
static FILE* record;

static FILE* out(void) {
  if (record == NULL) record = fopen(getenv("NVTX_RECORD"), "w");
  return record;
}

static nvtxDomainHandle_t NVTX_API domain_create(const char* name) {
  strncpy(domain_name, name, sizeof(domain_name) - 1);
  return (nvtxDomainHandle_t)domain_name;
}

static void say(const char* what, nvtxDomainHandle_t domain, const nvtxEventAttributes_t* event) {
  fprintf(out(), "%s %s %s %llu\n", what, (const char*)domain, event->message.ascii,
          (unsigned long long)event->payload.ullValue);
  fflush(out());
}

static int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* event) {
  say("push", domain, event);
  return 0;
}

static int NVTX_API pop(nvtxDomainHandle_t domain) {
  fprintf(out(), "pop %s\n", (const char*)domain);
  fflush(out());
  return 0;
}

static void NVTX_API mark(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* event) { say("mark", domain, event); }

static nvtxMemHeapHandle_t NVTX_API heap_register(nvtxDomainHandle_t domain, nvtxMemHeapDesc_t const* desc) {
  const nvtxMemVirtualRangeDesc_t* range = (const nvtxMemVirtualRangeDesc_t*)desc->typeSpecificDesc;
  (void)domain;
  fprintf(out(), "heap %p %zu\n", range->ptr, range->size);
  fflush(out());
  return (nvtxMemHeapHandle_t)range->ptr;
}

static void NVTX_API heap_unregister(nvtxDomainHandle_t domain, nvtxMemHeapHandle_t heap) {
  (void)domain;
  fprintf(out(), "heap-end %p\n", (void*)heap);
  fflush(out());
}

static void NVTX_API regions_register(nvtxDomainHandle_t domain, nvtxMemRegionsRegisterBatch_t const* desc) {
  const nvtxMemVirtualRangeDesc_t* range = (const nvtxMemVirtualRangeDesc_t*)desc->regionDescElements;
  (void)domain;
  fprintf(out(), "region %p %zu in %p\n", range->ptr, range->size, (void*)desc->heap);
  fflush(out());
}

static void NVTX_API regions_unregister(nvtxDomainHandle_t domain, nvtxMemRegionsUnregisterBatch_t const* desc) {
  (void)domain;
  fprintf(out(), "region-end %p\n", desc->refElements[0].pointer);
  fflush(out());
}

__attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table) {
  const NvtxExportTableCallbacks* callbacks = (const NvtxExportTableCallbacks*)get_export_table(NVTX_ETID_CALLBACKS);
  NvtxFunctionTable table = NULL;
  unsigned size = 0;
  if (callbacks == NULL || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
  *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)domain_create;
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
  *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
  *table[NVTX_CBID_CORE2_DomainMarkEx] = (NvtxFunctionPointer)mark;
  return 1;
}

__attribute__((visibility("default"))) int InitializeInjectionNvtxExtension(nvtxExtModuleInfo_t* module) {
  if (getenv("NVTX_RECORD_MEMORY") == NULL || module->moduleId != NVTX_EXT_MODULEID_MEM) return 0;
  intptr_t* slots = module->segments->functionSlots;
  slots[NVTX3EXT_CBID_nvtxMemHeapRegister] = (intptr_t)heap_register;
  slots[NVTX3EXT_CBID_nvtxMemHeapUnregister] = (intptr_t)heap_unregister;
  slots[NVTX3EXT_CBID_nvtxMemRegionsRegister] = (intptr_t)regions_register;
  slots[NVTX3EXT_CBID_nvtxMemRegionsUnregister] = (intptr_t)regions_unregister;
  return 1;
}
