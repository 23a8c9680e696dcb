/* Normalization of float32 arrays, for one instruction set; kernels.h includes this at its end. As fast as memory.

   An array is `rows` x `channels` x `length` in memory; what is normalized together is a channel: images (H, C, W, N) have H rows and lines of
   W * N numbers. All sums and products are in double precision: what cancels or overflows in single precision does not here. A call is cut into
   parts that do not depend on the number of threads; no part writes what another does. */

#define WIDE NAME(wide)
#define HALF NAME(half)
#define LOOSE_HALF NAME(loose_half)
#define WIDE_LANES (LANES / 2)

typedef double WIDE __attribute__((vector_size(4 * LANES)));
typedef float HALF __attribute__((vector_size(2 * LANES)));
typedef float LOOSE_HALF __attribute__((vector_size(2 * LANES), aligned(4), may_alias)); /* anywhere in memory */

struct NAME(channels) {
    ptrdiff_t rows, channels, length, some; /* channels, or lines, in a part */
    const float *g, *x;
    const double *each; /* numbers of the channels, one kind after the other */
    double *sums;
    float *out;
};

TARGET static inline WIDE NAME(widened)(const float *from) { return __builtin_convertvector(*(const LOOSE_HALF *)from, WIDE); }

TARGET static inline double NAME(total)(const WIDE sums[4])
{
    double lanes[WIDE_LANES], total = 0;
    const WIDE sum = sums[0] + sums[1] + (sums[2] + sums[3]);
    memcpy(lanes, &sum, sizeof sum);
    for (int lane = 0; lane < WIDE_LANES; lane++)
        total += lanes[lane];
    return total;
}

/* The sums of a * b and of b, for a = x - center and b = g; without g, for b = a. */
TARGET static inline __attribute__((always_inline)) void
NAME(add_products)(const float *x, const float *g, double center, ptrdiff_t count, double *products, double *plain)
{
    WIDE both[4] = {{0}}, one[4] = {{0}};
    double last_both = 0, last_one = 0;
    ptrdiff_t at = 0;
    for (; at + 4 * WIDE_LANES <= count; at += 4 * WIDE_LANES)
        for (int i = 0; i < 4; i++) {
            const WIDE a = NAME(widened)(x + at + i * WIDE_LANES) - center;
            const WIDE b = g ? NAME(widened)(g + at + i * WIDE_LANES) : a;
            both[i] += a * b;
            one[i] += b;
        }
    for (; at < count; at++) {
        const double a = x[at] - center, b = g ? g[at] : a;
        last_both += a * b;
        last_one += b;
    }
    *products += NAME(total)(both) + last_both;
    *plain += NAME(total)(one) + last_one;
}

/* Of each channel the sum, and the sum of squares of distances from the mean. A piece of a line is read twice, the second time from the
   first-level cache: from distances to its own mean nothing is lost. */
TARGET static void NAME(moments_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(channels) *t = context;
    const ptrdiff_t first = part * t->some, end = min(first + t->some, t->channels);
    double *sum = t->sums, *squares = t->sums + t->channels;
    (void)worker;
    for (ptrdiff_t c = first; c < end; c++)
        sum[c] = squares[c] = 0;
    for (ptrdiff_t row = 0; row < t->rows; row++)
        for (ptrdiff_t c = first; c < end; c++)
            for (ptrdiff_t at = 0, count; at < t->length; at += count) {
                const float *x = t->x + (row * t->channels + c) * t->length + at;
                const double before = (double)(row * t->length + at);
                double own = 0, unused = 0, around = 0, rest = 0;
                count = min(t->length - at, SMALL_LINES / 2);
                NAME(add_products)(x, x, 0, count, &unused, &own);
                const double mean = own / (double)count;
                NAME(add_products)(x, NULL, mean, count, &around, &rest);
                const double apart = before > 0 ? mean - sum[c] / before : 0;
                squares[c] += around + apart * apart * (before * (double)count / (before + (double)count));
                sum[c] += own;
            }
}

/* Of each channel the sum of g, and of g times the distance of x from its center. */
TARGET static void NAME(gradient_sums_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(channels) *t = context;
    const ptrdiff_t first = part * t->some, end = min(first + t->some, t->channels);
    double *plain = t->sums, *products = t->sums + t->channels;
    (void)worker;
    for (ptrdiff_t c = first; c < end; c++)
        plain[c] = products[c] = 0;
    for (ptrdiff_t row = 0; row < t->rows; row++)
        for (ptrdiff_t c = first; c < end; c++) {
            const ptrdiff_t line = (row * t->channels + c) * t->length;
            NAME(add_products)(t->x + line, t->g + line, t->each[c], t->length, products + c, plain + c);
        }
}

/* One line of the output: (x - center) * scale + shift, and g * factor added to it if there is g. */
TARGET static inline __attribute__((always_inline)) void
NAME(affine_line)(const float *x, const float *g, float *restrict out, ptrdiff_t count, double center, double scale, double shift, double factor)
{
    ptrdiff_t at = 0;
    for (; at + WIDE_LANES <= count; at += WIDE_LANES) {
        WIDE v = (NAME(widened)(x + at) - center) * scale + shift;
        if (g)
            v += NAME(widened)(g + at) * factor;
        *(LOOSE_HALF *)(out + at) = __builtin_convertvector(v, HALF);
    }
    for (; at < count; at++) {
        const double v = (x[at] - center) * scale + shift;
        out[at] = (float)(g ? v + g[at] * factor : v);
    }
}

TARGET static void NAME(affine_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(channels) *t = context;
    const ptrdiff_t first = part * t->some, end = min(first + t->some, t->rows * t->channels);
    (void)worker;
    for (ptrdiff_t line = first; line < end; line++) {
        const double *each = t->each + line % t->channels;
        const double center = each[0], scale = each[t->channels], shift = each[2 * t->channels];
        const float *x = t->x + line * t->length;
        float *out = t->out + line * t->length;
        if (t->g)
            NAME(affine_line)(x, t->g + line * t->length, out, t->length, center, scale, shift, each[3 * t->channels]);
        else
            NAME(affine_line)(x, NULL, out, t->length, center, scale, shift, 0);
    }
}

/* Mean and variance of each channel. */
TARGET static void NAME(moments)(ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *x, double *out, ptrdiff_t threads)
{
    struct NAME(channels) t = {.rows = rows, .channels = channels, .length = length, .x = x, .sums = out};
    t.some = 1 + min(SMALL_PART / (rows * length), channels / GROUPS);
    in_parallel(rows * channels * length < SMALL_PART ? 1 : threads, (channels - 1) / t.some + 1, NAME(moments_part), &t);
    for (ptrdiff_t at = 0; at < 2 * channels; at++)
        out[at] /= (double)(rows * length);
}

/* The sums of g, and of g * (x - center), of each channel. */
TARGET static void NAME(gradient_sums)(ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *g, const float *x, const double *center,
                                  double *out, ptrdiff_t threads)
{
    struct NAME(channels) t = {.rows = rows, .channels = channels, .length = length, .g = g, .x = x, .each = center, .sums = out};
    t.some = 1 + min(SMALL_PART / (rows * length), channels / GROUPS);
    in_parallel(rows * channels * length < SMALL_PART ? 1 : threads, (channels - 1) / t.some + 1, NAME(gradient_sums_part), &t);
}

/* (x - center) * scale + shift, and g * factor added to it if there is g; `each` holds these numbers. */
TARGET static void NAME(affine)(ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *x, const float *g, const double *each,
                                float *out, ptrdiff_t threads)
{
    struct NAME(channels) t = {.rows = rows, .channels = channels, .length = length, .g = g, .x = x, .each = each, .out = out};
    t.some = 1 + SMALL_PART / 4 / length;
    in_parallel(rows * channels * length < SMALL_PART ? 1 : threads, (rows * channels - 1) / t.some + 1, NAME(affine_part), &t);
}
