/* The same checks of the kernels for double. */
#define NI_F64
#include "kernel_test.c"
