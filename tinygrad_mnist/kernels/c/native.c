/* Convolution, pooling, normalization and activation functions in C11 with the vector extensions of GCC and Clang, for each instruction set.

   A plain shared library: it knows nothing of Python, keeps nothing but threads (pool.h), and may be called from several threads. The kernels,
   with comments, are in kernels.h and pooling.h.

   Winograd's F(4, 3) (Lavin and Gray, 2016) writes four outputs y of a three-column filter w over six inputs d as

       y = A ((G w) * (B d)),   with the six points 0, a, -a, b, -b and infinity:

       A = 1   1   1   1   1   0    G = G0   0     0       B = aabb   0   -aa-bb    0    1   0
           0   a  -a   b  -b   0        GA  GA a  GA aa         0   -abb    -bb     a    1   0
           0  aa  aa  bb  bb   0        GA -GA a  GA aa         0    abb    -bb    -a    1   0
           0 aaa -aaa bbb -bbb 1        GB  GB b  GB bb         0   -aab    -aa     b    1   0
                                        GB -GB b  GB bb         0    aab    -aa    -b    1   0
                                         0   0     1            0   aabb     0   -aa-bb  0   1

   and so the sum of y * g, for any g, as that of (G w) * (B d) * (A' g): the weight gradient is G' of the sums of (B d) * (A' g). With
   a = 3/4 and b = 3/2 the errors are those of a plain sum in float32, to within a half (with 1 and 2, twice as large). They are in
   proportion to all six inputs; outputs that see far less of them, and all where an input is not finite, are computed by the plain sum. */
#define _POSIX_C_SOURCE 200809L /* for sigset_t; before all headers */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct geometry {
    ptrdiff_t n, c, h, w;        /* images (H, C, W, N) */
    ptrdiff_t f, kh, kw;         /* filters */
    ptrdiff_t sh, sw, top, left; /* stride and padding */
    ptrdiff_t oh, ow;            /* output (OH, F, OW, N) */
    ptrdiff_t wf, wc, wk, wl;    /* how far apart in memory the weights (F, C, KH, KW) are, in floats */
    ptrdiff_t yf, yi, yj;        /* the same for filters, rows and columns of the output of a convolution */
    ptrdiff_t dh, dw;            /* dilation, for depthwise convolutions */
};

#if defined(__GNUC__) && !defined(__clang__)
#define UNROLLED _Pragma("GCC unroll 16") /* before a loop over registers: GCC would keep them in memory before and after it */
#else
#define UNROLLED
#endif

enum { COLUMNS = 4, POINTS = 6, SEEN = COLUMNS + 1 }; /* of Winograd's F(4, 3) */
static const float A1 = 0.75f, A2 = 0.5625f, B1 = 1.5f, B2 = 2.25f; /* a, aa, b, bb */
static const float G0 = 64 / 81.f, GA = -128 / 243.f, GB = 32 / 243.f; /* 1 / aabb, 1 / (2aa (aa - bb)), 1 / (2bb (bb - aa)) */

struct plan {
    ptrdiff_t points;      /* POINTS for Winograd, 1 for the textbook */
    ptrdiff_t rows;        /* of a lowered row of the image, for each point */
    ptrdiff_t columns;     /* of the output in a unit: COLUMNS, or 1 */
    ptrdiff_t units;       /* in a row of the output */
    ptrdiff_t lanes;       /* for the images of one unit: for Winograd up to whole vectors */
    ptrdiff_t strip;       /* units that are lowered together */
    ptrdiff_t tiles;       /* in a strip */
    ptrdiff_t chunk;       /* floats from one tile to the next: an odd number of rows, so that tiles do not share a cache's sets */
    ptrdiff_t seen, slot;  /* floats in a lowered row, and with the sums of what is seen behind it */
    ptrdiff_t strips, height, blocks; /* a part of the work is a strip of so many output rows; there are strips * blocks parts */
};

struct ring { /* the lowered rows that one output row sees */
    float *slots;
    ptrdiff_t count;
    ptrdiff_t *holds;   /* which row of the image is in each */
    const float **rows; /* the one that each row of the kernel sees */
    float *zeros;       /* a column that is outside of the image */
    float *more;
    float *plain; /* the filters laid out for the textbook, once `laid_out` is not 0 */
    int *laid_out;
};

struct found { /* about weights, their sizes as `magnitude` gives them */
    int lightest, heaviest, even;
};

enum activation { GELU, GELU_TANH, SILU, MISH, SOFTPLUS }; /* as numbered in compiled.py */
static const double FAR = 700; /* exp(-700) is 0, whatever float32 numbers it is multiplied with */

struct range {
    ptrdiff_t begin, end;
};

enum {
    LOWERED = 384 << 10,  /* bytes in a ring: of a second-level cache of 1 MB; 256 to 768 KB are equally fast */
    SUMMED = 24 << 10,    /* bytes in the rows of a tile that are summed up at a time: they stay in the first-level cache */
    TOGETHER = 64,        /* lanes that a weight gradient sums up before it adds them to others */
    FOLDED = 1024,        /* lanes, times 4 or LANES, that a weight gradient sums in float32 */
    CHANNELS = 8,         /* whose gradients are written together */
    FEW = 1024,           /* weights whose gradients may be sums of vectors */
    SMALL_PART = 1 << 16, /* floats of an image: less are not worth waking another thread */
    SMALL_LINES = 1 << 12, /* floats of lines that pooling combines together: they stay in the first-level cache */
    SHARES = 4,           /* parts of a convolution for each thread, about, if there are rows enough */
    PARTS = 16,           /* of a weight gradient, at most, */
    PART = 640 << 10,     /* and bytes that the sums of one take up: half of a second-level cache */
    RESULTS = 8 << 20,    /* floats that all of them may hold, if they are more than two, */
    GROUPS = 16,          /* parts of a normalization, at least, if there are so many channels */
    LEAST_LANES = 512     /* and lanes that each should have: it takes as long as some 50 to add up what they give */
};

double worth_a_thread = 2 << 20; /* multiplications that are worth waking one for; exported for tests */

enum { NO_MEMORY = 1, NOT_FINITE, UNEVEN }; /* what may be in the way of a plan; 0 if nothing is */
enum { ZEROS = 1, APART = 2 };              /* what an output column may see */

/* Winograd's rounding errors are in proportion to the largest number that a unit's six columns hold, times the largest weight; a plain sum's
   are to what the output sees, times the weights that it meets. Where these are far apart, the plain sum is computed: for all outputs if the
   weights are uneven, else for single ones. In training on MNIST that is one of 6 vectors of outputs of the second layer, one of 12 of the
   third, beside black pixels, and hardly any of the others. */
static const float EVEN_COLUMNS = 32, EVEN_ROWS = 16, ALL_ROWS = 65536; /* the largest |w| of a filter may be so many times that of each of its
                                                                           columns, the mean of its other rows', and that of each row */
static const float LIGHTEST = 0x1p-40f, HEAVIEST = 0x1p60f; /* the largest |w| of a filter; else products may overflow or be subnormal */
static const float RATIO = 64, SINGLE = 1.06f; /* of what a unit sees: its sum over that of a column, at most; its square over the sum of
                                                   squares, at least: no number may be larger than all others together, times 30 */
enum { TERMS = 24 }; /* of a sum, at least: in a corner there are few, which may all meet small weights */
static const float LEAST = 0x1p-60f, MOST = 0x1p60f; /* the sum of what a unit sees; else products may overflow or be subnormal */

/* Winograd's sums for the gradients of a row of weights may be this small and large. Where they are OUTLIER times as large as usual (or as
   HIGH), they may be as many times a gradient as that has multiplications and additions, but not more than CANCELLED times. All together
   they may be WEAK times the gradients of a column of the kernel. */
static const float FAINTEST = 0x1p-80f, LARGEST = 0x1p60f, HIGH = 0x1p8f, OUTLIER = 64, WEAK = 32;
enum { CANCELLED = 128 };

static inline ptrdiff_t min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static inline double fmost(double a, double b) { return fabs(a) > fabs(b) ? fabs(a) : fabs(b); }
static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline int larger(int a, int b) { return a > b ? a : b; }

#include "pool.h"

static inline int magnitude(float v)
{
    int bits;
    memcpy(&bits, &v, sizeof v);
    return bits & 0x7fffffff;
}

static inline float number(int magnitude)
{
    float v;
    memcpy(&v, &magnitude, sizeof v);
    return v;
}

/* The magnitude that an eighth of the numbers but 0 are below, to a factor of 2, from how many there are with each exponent. */
static int low_quantile(const ptrdiff_t *exponents)
{
    ptrdiff_t count = 0, below = 0;
    for (int e = 1; e < 256; e++)
        count += exponents[e];
    int at = 1;
    while (at < 255 && 8 * (below += exponents[at]) < count)
        at++;
    return at << 23;
}

/* `points` is the most of them that the plan may have, `seen` how many sums of what is seen are kept for each lane. */
static struct plan make_plan(const struct geometry *s, ptrdiff_t lanes, ptrdiff_t tile, int points, int seen)
{
    const ptrdiff_t whole = (s->n + lanes - 1) / lanes * lanes; /* else Winograd does not pay: */
    const int winograd = points == POINTS && s->kw == 3 && s->sw == 1 && s->ow >= 3 && s->c >= 8 && s->f >= 4 && 3 * whole <= 4 * s->n;
    struct plan p = {.points = 1, .rows = s->c * s->kw, .columns = 1, .units = s->ow, .lanes = s->n};
    if (winograd)
        p = (struct plan){.points = POINTS, .rows = s->c, .columns = COLUMNS, .units = (s->ow + COLUMNS - 1) / COLUMNS, .lanes = whole};
    const ptrdiff_t bytes = (ptrdiff_t)sizeof(float) * min(s->kh, s->h) * p.points * p.rows * p.lanes;
    p.strip = (p.units - 1) / ((p.units - 1) / max(LOWERED / bytes, 1) + 1) + 1;
    p.strips = (p.units - 1) / p.strip + 1;
    p.tiles = (p.strip * p.lanes + tile - 1) / tile;
    p.chunk = (p.rows | 1) * tile;
    p.seen = p.points * p.tiles * p.chunk;
    p.slot = p.seen + (winograd ? p.tiles * seen * tile : 0);
    return p;
}

/* How many threads are worth it. */
static ptrdiff_t useful_threads(const struct geometry *s, ptrdiff_t threads)
{
    const double parts = (double)(s->n * s->f * s->oh) * (double)(s->ow * s->c * s->kh) * (double)s->kw / worth_a_thread;
    threads = min(threads, MOST_WORKERS + 1);
    return max(parts < (double)threads ? (ptrdiff_t)parts : threads, 1);
}

/* Cut each strip into about as many blocks of output rows. */
static void cut(const struct geometry *s, struct plan *p, ptrdiff_t blocks)
{
    p->height = (s->oh - 1) / max(min(blocks, s->oh), 1) + 1;
    p->blocks = (s->oh - 1) / p->height + 1;
}

static inline size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Memory for `floats`, and for a ring with `more` and `plain` floats for each of `threads`, all 0 but the last; NULL if there is none. */
static float *
reserve(const struct geometry *s, const struct plan *p, ptrdiff_t floats, ptrdiff_t more, ptrdiff_t plain, ptrdiff_t threads, struct ring *rings)
{
    const ptrdiff_t count = min(s->kh, s->h);
    const size_t shared = whole_lines(sizeof(float) * (size_t)floats), slots = whole_lines(sizeof(float) * (size_t)(count * p->slot));
    const size_t extra = whole_lines(sizeof(float) * (size_t)more), zeros = whole_lines(sizeof(float) * (size_t)p->lanes);
    const size_t tables = whole_lines(sizeof(ptrdiff_t) * (size_t)(count + 1) + sizeof(float *) * (size_t)s->kh);
    const size_t filters = whole_lines(sizeof(float) * (size_t)plain), each = slots + extra + zeros + tables + filters, whole = shared + (size_t)threads * each;
    char *all = aligned_alloc(64, whole);
    if (!all)
        return NULL;
    memset(all, 0, shared);
    for (ptrdiff_t thread = 0; thread < threads; thread++) {
        char *own = all + shared + (size_t)thread * each;
        memset(own, 0, each - filters);
        rings[thread] = (struct ring){.slots = (float *)own, .count = count};
        rings[thread].more = (float *)(own + slots);
        rings[thread].zeros = (float *)(own + slots + extra);
        rings[thread].holds = (ptrdiff_t *)(own + slots + extra + zeros);
        rings[thread].laid_out = (int *)(rings[thread].holds + count);
        rings[thread].rows = (const float **)(rings[thread].holds + count + 1);
        rings[thread].plain = (float *)(own + each - filters);
    }
    return (float *)all;
}

struct sums { /* of a weight gradient's part, `size` of them: `own` if `folds`, and what `unfolded` lanes gave */
    double *own;
    int folds;
    ptrdiff_t unfolded, size;
};

struct spread { /* of gradients as sums of points */
    double column[3], all;    /* sums of absolute values: of gradients, by column of the kernel, and of the largest point of each row */
    ptrdiff_t exponents[256]; /* how many of these points there are with each */
};

/* Empty the ring for the strip that begins at unit `first`; returns how many units it has. */
static ptrdiff_t next_strip(const struct plan *p, const struct ring *ring, ptrdiff_t first)
{
    for (ptrdiff_t at = 0; at < ring->count; at++)
        ring->holds[at] = -1;
    return min(p->strip, p->units - first);
}

/* Memory that is needed soon, fetched into the cache while something else is computed: `count` runs of `length` floats, `step` floats apart,
   some `lines` of the cache at a time. Processors foresee what comes next only within a page, which holds one run or two. */
struct ahead {
    const float *from;
    ptrdiff_t length, step, count;
    ptrdiff_t at, lines;
};

enum { LINE = 64 / sizeof(float) };

/* See to it that so many calls of `fetch` fetch everything. */
static void share_out(struct ahead ahead[2], ptrdiff_t calls)
{
    for (int i = 0; i < 2 && calls; i++)
        ahead[i].lines = (ahead[i].count * ((ahead[i].length - 1) / LINE + 1) - 1) / calls + 1;
}

static inline void fetch(struct ahead ahead[2])
{
    for (struct ahead *a = ahead; a < ahead + 2; a++)
        for (ptrdiff_t line = 0; line < a->lines && a->count > 0; line++) {
            __builtin_prefetch(a->from + a->at);
            a->at += LINE;
            if (a->at >= a->length) {
                a->at = 0;
                a->from += a->step;
                a->count--;
            }
        }
}

/* What output row i sees of the image, in a strip, and the row before it does not. */
static struct ahead seen_by(const struct geometry *s, const struct plan *p, const float *x, ptrdiff_t i, ptrdiff_t first)
{
    const ptrdiff_t y = i * s->sh - s->top, begin = max(max(y, y - s->sh + s->kh), 0), end = min(y + s->kh, s->h);
    const ptrdiff_t left = max(first * p->columns * s->sw - s->left, 0);
    const ptrdiff_t right = min((min(first + p->strip, p->units) * p->columns - 1) * s->sw - s->left + s->kw, s->w);
    return (struct ahead){x + (begin * s->c * s->w + left) * s->n, (right - left) * s->n, s->w * s->n, max(end - begin, 0) * s->c, 0, 0};
}

/* The columns of a strip in a row of the output, whose filters are `step` floats apart. */
static struct ahead written_to(const struct geometry *s, const struct plan *p, const float *row, ptrdiff_t step, ptrdiff_t first)
{
    const ptrdiff_t column = first * p->columns;
    return (struct ahead){row + column * s->n, min(p->strip * p->columns, s->ow - column) * s->n, step, s->f, 0, 0};
}

#if defined(__x86_64__) && !defined(BASELINE_ONLY) /* for tests that compile it many times */
#define X86 1
#endif

#define LANES 4
#define VECTORS 2
#if defined(__aarch64__) /* has 32 vector registers, which hold 16 sums */
#define BLOCK 8
#define ROWS 8
#else
#define BLOCK 4
#define ROWS 4
#endif
#define TARGET
#define NAME(x) x##_baseline
#include "kernels.h"

#if defined(X86)
#define LANES 8
#define VECTORS 2
#define BLOCK 4
#define ROWS 4
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) x##_avx2
#include "kernels.h"

#define LANES 16
#define VECTORS 2
#define BLOCK 8
#define ROWS 8
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define NAME(x) x##_avx512
#include "kernels.h"
#endif

struct kernels {
    int (*convolve)(const struct geometry *, const float *, const float *, const float *, float *, int, ptrdiff_t);
    int (*weight_gradient)(const struct geometry *, const float *, const float *, float *, ptrdiff_t);
    int (*depthwise)(const struct geometry *, const float *, const float *, const float *, float *, int, ptrdiff_t);
    int (*depthwise_weights)(const struct geometry *, const float *, const float *, float *, ptrdiff_t);
    void (*max_pool)(const struct geometry *, const float *, float *, ptrdiff_t);
    void (*max_pool_gradient)(const struct geometry *, const float *, const float *, const float *, float *, ptrdiff_t);
    int (*average_pool)(const struct geometry *, const float *, float *, ptrdiff_t);
    int (*average_pool_gradient)(const struct geometry *, const float *, float *, ptrdiff_t);
    void (*relu_gradient)(ptrdiff_t, const float *, const float *, float *, ptrdiff_t);
    void (*channel_sums)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, float *, ptrdiff_t);
    void (*moments)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, double *, ptrdiff_t);
    void (*gradient_sums)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, const float *, const double *, double *, ptrdiff_t);
    void (*affine)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, const float *, const double *, float *, ptrdiff_t);
    void (*activation)(enum activation, ptrdiff_t, const float *, const float *, float *, ptrdiff_t);
};

#define KERNELS(set) \
    {convolve_##set, weight_gradient_##set, depthwise_##set, depthwise_weights_##set, max_pool_##set, max_pool_gradient_##set, \
     average_pool_##set, average_pool_gradient_##set, relu_gradient_##set, channel_sums_##set, \
     moments_##set, gradient_sums_##set, affine_##set, activation_##set}
static const struct kernels levels[] = {
    KERNELS(baseline),
#if defined(X86)
    KERNELS(avx2),
    KERNELS(avx512),
#endif
};

/* What is exported. A level is an instruction set: 0 is the compiler's baseline, 1 AVX2 with FMA, 2 AVX-512. ------------------------------ */

#if defined(__clang__)
const char *compiler(void) { return "Clang " __clang_version__; }
#else
const char *compiler(void) { return "GCC " __VERSION__; }
#endif

/* By which a library of another version is told. */
size_t geometry_size(void) { return sizeof(struct geometry); }

/* The highest level that this processor has. */
int highest_level(void)
{
#if defined(X86)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? 2
               : 1;
#else
    return 0;
#endif
}

/* These use up to `threads` threads, and return NO_MEMORY if there is not enough; NOT_FINITE, and nothing else, if weights are not. */
int convolve(int level, ptrdiff_t threads, const struct geometry *s, const float *x, const float *w, const float *bias, float *out)
{
    return levels[level].convolve(s, x, w, bias, out, POINTS, threads);
}

int weight_gradient(int level, ptrdiff_t threads, const struct geometry *s, const float *x, const float *g, float *out)
{
    return levels[level].weight_gradient(s, x, g, out, threads);
}

int depthwise(int level, ptrdiff_t threads, const struct geometry *s, const float *x, const float *w, const float *bias, float *out)
{
    return levels[level].depthwise(s, x, w, bias, out, 0, threads);
}

int depthwise_gradient(int level, ptrdiff_t threads, const struct geometry *s, const float *g, const float *w, float *out)
{
    return levels[level].depthwise(s, g, w, NULL, out, 1, threads);
}

int depthwise_weights(int level, ptrdiff_t threads, const struct geometry *s, const float *x, const float *g, float *out)
{
    return levels[level].depthwise_weights(s, x, g, out, threads);
}

void max_pool(int level, ptrdiff_t threads, const struct geometry *s, const float *x, float *out)
{
    levels[level].max_pool(s, x, out, threads);
}

void max_pool_gradient(int level, ptrdiff_t threads, const struct geometry *s, const float *g, const float *x, const float *top, float *out)
{
    levels[level].max_pool_gradient(s, g, x, top, out, threads);
}

int average_pool(int level, ptrdiff_t threads, const struct geometry *s, const float *x, float *out)
{
    return levels[level].average_pool(s, x, out, threads);
}

int average_pool_gradient(int level, ptrdiff_t threads, const struct geometry *s, const float *g, float *out)
{
    return levels[level].average_pool_gradient(s, g, out, threads);
}

void relu_gradient(int level, ptrdiff_t threads, ptrdiff_t count, const float *g, const float *x, float *out)
{
    levels[level].relu_gradient(count, g, x, out, threads);
}

void channel_sums(int level, ptrdiff_t threads, ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *x, float *out)
{
    levels[level].channel_sums(rows, channels, length, x, out, threads);
}

void moments(int level, ptrdiff_t threads, ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *x, double *out)
{
    levels[level].moments(rows, channels, length, x, out, threads);
}

void gradient_sums(int level, ptrdiff_t threads, ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *g, const float *x,
              const double *center, double *out)
{
    levels[level].gradient_sums(rows, channels, length, g, x, center, out, threads);
}

void affine(int level, ptrdiff_t threads, ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *x, const float *g,
            const double *each, float *out)
{
    levels[level].affine(rows, channels, length, x, g, each, out, threads);
}

void activation(int level, ptrdiff_t threads, ptrdiff_t kind, ptrdiff_t count, const float *x, const float *g, float *out)
{
    levels[level].activation((enum activation)kind, count, x, g, out, threads);
}
