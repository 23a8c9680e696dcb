/* The kernels, for one instruction set. native.c includes this once for each, with

       LANES      floats in a vector
       VECTORS    vectors in a tile: what the inner loops go over at a time
       BLOCK      filters that are computed together; BLOCK * VECTORS sums are kept in registers
       ROWS       rows of lowered images, times two vectors of filters, that a weight gradient keeps in registers
       TARGET     function attributes
       NAME(x)    x with the name of the instruction set

   Images are (H, C, W, N) in memory, the batch innermost; all numbers are float32. Rates are for one core (Zen 4 at 3.4 GHz, where 110
   GFLOP/s of multiply-adds is the most that either AVX-512 or AVX2 reaches), 64 to 128 images, on the layers of the 21-layer network. */

#define VEC NAME(vec)
#define LOOSE NAME(loose)
#define INT NAME(ints)
#define TILE (VECTORS * LANES)
#define DEPTH (SUMMED / (4 * TILE))
#define DOT_ROWS 4 /* times DOT_WIDE filters: as many sums as ROWS times two vectors */
#define DOT_WIDE (ROWS / 2)

/* The lanes, from lane `at` on, of two vectors in turns. */
#define TWO(at) (at), LANES + (at)
#define FOUR(at) TWO(at), TWO((at) + 1)
#define EIGHT(at) FOUR(at), FOUR((at) + 2)
#if LANES == 4
#define INTERLEAVED(at) FOUR(at)
#elif LANES == 8
#define INTERLEAVED(at) EIGHT(at)
#else
#define INTERLEAVED(at) EIGHT(at), EIGHT((at) + 4)
#endif
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (INT){__VA_ARGS__})
#endif

typedef float VEC __attribute__((vector_size(4 * LANES)));
typedef float LOOSE __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* anywhere in memory */
typedef int INT __attribute__((vector_size(4 * LANES)));

/* The first `count` lanes; the others are 0. */
TARGET static inline VEC NAME(load)(const float *from, ptrdiff_t count)
{
    VEC v = {0};
    if (count >= LANES)
        return *(const LOOSE *)from;
    memcpy(&v, from, sizeof(float) * count);
    return v;
}

TARGET static inline void NAME(store)(float *to, VEC v, ptrdiff_t count)
{
    if (count >= LANES)
        *(LOOSE *)to = v;
    else
        memcpy(to, &v, sizeof(float) * count);
}

/* Where the vector begins that covers lane `at` of `count`: the last one overlaps the one before it, if there is one. */
static inline ptrdiff_t NAME(fitted)(ptrdiff_t at, ptrdiff_t count)
{
    return at + LANES > count && count >= LANES ? count - LANES : at;
}

TARGET static inline VEC NAME(absolute)(VEC v) { return (VEC)((INT)v & 0x7fffffff); }

TARGET static inline int NAME(any)(INT v, ptrdiff_t count) /* whether one of the first lanes is not 0 */
{
    int lanes[LANES], found = 0;
    memcpy(lanes, &v, sizeof v);
    for (ptrdiff_t lane = 0; lane < min(count, LANES); lane++)
        found |= lanes[lane];
    return found;
}

TARGET static inline float NAME(across)(VEC v) /* the sum of its lanes */
{
    float lanes[LANES], sum = 0;
    memcpy(lanes, &v, sizeof v); /* indexing v would keep it in memory all the time */
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

#include "lowering.h"
#include "convolution.h"
#include "weights.h"
#include "depthwise.h"
#include "pooling.h"
#include "normalization.h"
#include "smooth.h"

#undef WIDE
#undef HALF
#undef LOOSE_HALF
#undef WIDE_LANES
#undef VEC
#undef LOOSE
#undef INT
#undef TILE
#undef DEPTH
#undef DOT_ROWS
#undef DOT_WIDE
#undef LANES
#undef TWO
#undef FOUR
#undef EIGHT
#undef INTERLEAVED
#undef SHUFFLE
#undef VECTORS
#undef BLOCK
#undef ROWS
#undef TARGET
#undef NAME
