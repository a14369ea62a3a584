/*
** Floor 7: messages, memory, processor and threads as the public header has them.
*/
#include "../base/base.h"
#include "../kernel/kernel.h"

NEAP_API const char *neap_errmsg(void) { return ni_message(); }

NEAP_API const char *neap_status_name(neap_status status) {
  switch (status) {
    case NEAP_OK: return "OK";
    case NEAP_EMEM: return "EMEM";
    case NEAP_EARG: return "EARG";
    case NEAP_ESHAPE: return "ESHAPE";
    case NEAP_ETYPE: return "ETYPE";
    case NEAP_ERANGE: return "ERANGE";
    case NEAP_EIO: return "EIO";
    case NEAP_EFORMAT: return "EFORMAT";
    case NEAP_EUNSUPPORTED: return "EUNSUPPORTED";
    case NEAP_ECANCELED: return "ECANCELED";
    case NEAP_ENONFINITE: return "ENONFINITE";
    case NEAP_ESTATE: return "ESTATE";
  }
  return "unknown";
}

NEAP_API const char *neap_version(void) { return NEAP_VERSION; }

NEAP_API void neap_allocator_set(neap_alloc_fn fn, void *ud) { ni_memory_set(fn, ud); }

NEAP_API size_t neap_memory_live(void) { return ni_memory_live(); }

NEAP_API const char *neap_cpu_level(void) { return ni_kernel_f32()->level; }

NEAP_API const char *neap_blas_core(void) { return ni_blas_core(); }

NEAP_API neap_status neap_cpu_select(const char *level) {
  if (!level)
    return ni_fail(NEAP_EARG, "cpu_select: expected the name of a level, came NULL");
  if (!ni_kernel_select(level))
    return ni_fail(NEAP_EUNSUPPORTED,
                   "cpu_select: this processor or build has no level \"%.40s\" (avx512, avx2, "
                   "neon and generic are known)",
                   level);
  return NEAP_OK;
}

NEAP_API void neap_blas_threads(int threads) {
  if (threads > 0)
    ni_blas_threads(threads);
}

NEAP_API neap_status neap_pool_new(neap_pool **pool, int threads) {
  if (!pool)
    return ni_fail(NEAP_EARG, "pool: expected a place for the result, came NULL");
  return ni_pool_new(pool, threads);
}

NEAP_API void neap_pool_release(neap_pool *pool) { ni_pool_release(pool); }

NEAP_API int neap_pool_threads(const neap_pool *pool) { return ni_pool_threads(pool); }
