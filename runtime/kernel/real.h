/*
** Files that compute are compiled twice: for float, and with NI_F64 for double (gradient checks
** and oracles). Names that exist twice go through NI_R.
*/
#ifndef NI_REAL_H
#define NI_REAL_H
#ifdef NI_F64
typedef double real;
#define NI_R(name) name##_f64
#else
typedef float real;
#define NI_R(name) name##_f32
#endif
#endif
