/* Depthwise convolution, in which each channel has filters of its own, for one instruction set; kernels.h includes this. About as fast as memory.

   A result is a sum of taps, each a weight times what it meets. In memory the columns of a line, with all their images, lie side by side; those
   columns whose taps meet neighbours are a run, and vectors go along it. Without strides a run is nearly the whole line: all columns but those
   that see the border. What is outside of the image is no tap, so padding takes no part, whatever the weights.

   The gradient by the image is the same sum of other taps: of the output's gradients, those that were computed from a pixel. */

enum {
    NAME(TAPS) = 32,          /* that are summed up together */
    NAME(SUMMED_TAPS) = 9,           /* sums of a weight gradient in registers */
    NAME(FOLDED_RUN) = 1024,  /* vectors that a sum of a weight gradient adds up in float32 */
    NAME(CACHED) = 32 << 10   /* bytes of lines that are computed together: with what they see, they stay in the caches */
};

struct NAME(depthwise) {
    const struct geometry *s;
    const float *x, *w, *bias, *g;
    float *out;
    int adjoint;                       /* whether the gradient by the image is computed; then `x` is that by the output */
    ptrdiff_t rows, columns, channels; /* of the result, */
    ptrdiff_t seen_rows, seen_columns, seen_channels; /* and of what it is computed from */
    ptrdiff_t runs, *run;              /* of columns: begin, end, and what each column of the kernel meets in the first of them, or -1 */
    ptrdiff_t together, blocks, height; /* channels of a block, how many blocks there are, and rows in a part */
    VEC *sums;                         /* of a weight gradient, for each weight: lanes that are still to be added up, */
    double *total;                     /* and what was */
};

/* The row (or column) that row `at` of the result meets `k` rows into the kernel, or -1. */
static inline ptrdiff_t NAME(met)(ptrdiff_t at, ptrdiff_t k, ptrdiff_t stride, ptrdiff_t before, ptrdiff_t length, int adjoint)
{
    ptrdiff_t place = adjoint ? at + before - k : at * stride + k - before;
    if (adjoint && (place < 0 || place % stride))
        return -1;
    place = adjoint ? place / stride : place;
    return place >= 0 && place < length ? place : -1;
}

/* Find the runs of columns, and cut the channels into blocks, at least as many as `parts`; returns NO_MEMORY if there is none. */
static int NAME(find_runs)(struct NAME(depthwise) *d, ptrdiff_t parts)
{
    const struct geometry *s = d->s;
    const ptrdiff_t step = 2 + s->kw;
    d->run = malloc(sizeof *d->run * (size_t)(d->columns * step));
    if (!d->run)
        return NO_MEMORY;
    for (ptrdiff_t j = 0; j < d->columns; j++) {
        ptrdiff_t *run = d->run + d->runs * step;
        int more = j > 0; /* whether the taps meet the neighbours of those that the run before met last */
        for (ptrdiff_t l = 0; l < s->kw; l++) {
            run[2 + l] = NAME(met)(j, l * s->dw, s->sw, s->left, d->seen_columns, d->adjoint);
            if (more) {
                const ptrdiff_t first = run[2 + l - step];
                more = first < 0 ? run[2 + l] < 0 : run[2 + l] == first + j - run[-step];
            }
        }
        if (more) {
            run[1 - step] = j + 1;
        } else {
            run[0] = j;
            run[1] = j + 1;
            d->runs++;
        }
    }
    d->together = min(max(NAME(CACHED) / (ptrdiff_t)sizeof(float) / (max(d->columns, d->seen_columns) * s->n), 1), (d->channels - 1) / parts + 1);
    d->blocks = (d->channels - 1) / d->together + 1;
    return 0;
}

/* to[lane] = bias + sum over t of w[t] * from[at[t] + lane], for `count` lanes; if `more`, added to what is there instead of the bias. */
TARGET static inline void
NAME(add_taps)(float *restrict to, const float *restrict from, const ptrdiff_t *at, const float *w, ptrdiff_t taps, float bias, int more,
               ptrdiff_t count)
{
    enum { WIDE = 4 };
    ptrdiff_t lane = 0;
    for (; lane + WIDE * LANES <= count; lane += WIDE * LANES) {
        VEC sum[WIDE];
        UNROLLED
        for (int v = 0; v < WIDE; v++)
            sum[v] = more ? (VEC)*(const LOOSE *)(to + lane + v * LANES) : (VEC){0} + bias;
        for (ptrdiff_t t = 0; t < taps; t++) {
            const float *p = from + at[t] + lane;
            UNROLLED
            for (int v = 0; v < WIDE; v++)
                sum[v] += w[t] * *(const LOOSE *)(p + v * LANES);
        }
        UNROLLED
        for (int v = 0; v < WIDE; v++)
            *(LOOSE *)(to + lane + v * LANES) = sum[v];
    }
    while (lane + LANES <= count || (lane < count && count >= LANES && !more)) { /* the last vector may overlap the one before it */
        lane = min(lane, count - LANES);
        VEC sum = more ? (VEC)*(const LOOSE *)(to + lane) : (VEC){0} + bias;
        for (ptrdiff_t t = 0; t < taps; t++)
            sum += w[t] * *(const LOOSE *)(from + at[t] + lane);
        *(LOOSE *)(to + lane) = sum;
        lane += LANES;
    }
    for (; lane < count; lane++) {
        float sum = more ? to[lane] : bias;
        for (ptrdiff_t t = 0; t < taps; t++)
            sum += w[t] * from[at[t] + lane];
        to[lane] = sum;
    }
}

/* One run of a row, for a block of channels. */
TARGET static void NAME(sum_run)(const struct NAME(depthwise) *d, ptrdiff_t row, const ptrdiff_t *run, ptrdiff_t begin, ptrdiff_t end)
{
    const struct geometry *s = d->s;
    const ptrdiff_t many = s->f / s->c, lines = d->adjoint ? many : 1, line = d->seen_columns * s->n, area = s->kh * s->kw;
    float *out = d->out + (row * d->channels * d->columns + run[0]) * s->n;
    ptrdiff_t at[NAME(TAPS)], tap[NAME(TAPS)], taps = 0, q = 0, k = 0, l = 0, y = -1;
    int more = 0;
    for (int last = 0; !last;) {
        for (taps = 0; taps < NAME(TAPS) && q < lines;) { /* the next taps of all channels */
            y = l ? y : NAME(met)(row, k * s->dh, s->sh, s->top, d->seen_rows, d->adjoint);
            if (y >= 0 && run[2 + l] >= 0) {
                at[taps] = (y * d->seen_channels + q) * line + run[2 + l] * s->n;
                tap[taps++] = (q * s->kh + k) * s->kw + l;
            }
            if (y < 0 || ++l == s->kw) {
                l = 0;
                if (++k == s->kh) {
                    k = 0;
                    q++;
                }
            }
        }
        last = q == lines;
        for (ptrdiff_t c = begin; c < end; c++) {
            const float *from = d->x + (d->adjoint ? c * many : c / many) * line, *own = d->w + c * lines * area;
            float w[NAME(TAPS)];
            for (ptrdiff_t t = 0; t < taps; t++)
                w[t] = own[tap[t]];
            NAME(add_taps)(out + c * d->columns * s->n, from, at, w, taps, d->bias ? d->bias[c] : 0, more, (run[1] - run[0]) * s->n);
        }
        more = 1;
    }
}

TARGET static void NAME(depthwise_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(depthwise) *d = context;
    const ptrdiff_t begin = part % d->blocks * d->together, top = part / d->blocks * d->height;
    (void)worker;
    for (ptrdiff_t row = top; row < min(top + d->height, d->rows); row++)
        for (ptrdiff_t r = 0; r < d->runs; r++)
            NAME(sum_run)(d, row, d->run + r * (2 + d->s->kw), begin, min(begin + d->together, d->channels));
}

/* How many threads are worth it: what is waited for is memory, so a multiplication takes several times as long as elsewhere. */
static ptrdiff_t NAME(depthwise_threads)(const struct geometry *s, ptrdiff_t threads)
{
    return useful_threads(&(struct geometry){.n = 4 * s->n, .f = s->f, .oh = s->oh, .ow = s->ow, .c = 1, .kh = s->kh, .kw = s->kw}, threads);
}

/* out[i, f, j, n] = bias[f] + sum over k, l of w[f, k, l] * x[i * stride + k * dilation - top, f / (F / C), j * stride + l * dilation - left, n],
   or, with `adjoint`, the gradient of that by the image: then `x` is the gradient by the output. */
TARGET static int
NAME(depthwise)(const struct geometry *s, const float *x, const float *w, const float *bias, float *out, int adjoint, ptrdiff_t threads)
{
    struct NAME(depthwise) d = {.s = s, .x = x, .w = w, .bias = bias, .out = out, .adjoint = adjoint, .rows = s->oh, .columns = s->ow, .channels = s->f,
                                .seen_rows = s->h, .seen_columns = s->w, .seen_channels = s->c};
    if (adjoint) {
        d.rows = s->h, d.columns = s->w, d.channels = s->c;
        d.seen_rows = s->oh, d.seen_columns = s->ow, d.seen_channels = s->f;
    }
    threads = NAME(depthwise_threads)(s, threads);
    if (NAME(find_runs)(&d, 1))
        return NO_MEMORY;
    const ptrdiff_t shares = threads > 1 ? min((SHARES * threads - 1) / d.blocks + 1, d.rows) : 1;
    d.height = (d.rows - 1) / shares + 1;
    in_parallel(threads, d.blocks * ((d.rows - 1) / d.height + 1), NAME(depthwise_part), &d);
    free(d.run);
    return 0;
}

/* sums[tap[t]] += g * x, for `count` lanes of one line, the x of tap t `at[t]` floats on; the sums of so many taps stay in registers. */
TARGET static inline __attribute__((always_inline)) void
NAME(tap_sums)(VEC *sums, const float *restrict g, const float *restrict x, const ptrdiff_t *at, const ptrdiff_t *tap, ptrdiff_t count, const int taps)
{
    VEC sum[NAME(SUMMED_TAPS)];
    UNROLLED
    for (int t = 0; t < taps; t++)
        sum[t] = sums[tap[t]];
    ptrdiff_t lane = 0;
    for (; lane + LANES <= count; lane += LANES) {
        const VEC v = *(const LOOSE *)(g + lane);
        UNROLLED
        for (int t = 0; t < taps; t++)
            sum[t] += v * *(const LOOSE *)(x + at[t] + lane);
    }
    UNROLLED
    for (int t = 0; t < taps; t++)
        sums[tap[t]] = sum[t];
    for (; lane < count; lane++)
        for (int t = 0; t < taps; t++)
            sums[tap[t]][lane % LANES] += g[lane] * x[at[t] + lane];
}

TARGET static void
NAME(add_tap_sums)(VEC *sums, const float *g, const float *x, const ptrdiff_t *at, const ptrdiff_t *tap, ptrdiff_t taps, ptrdiff_t count)
{
#define SUMS_OF(n) case n: NAME(tap_sums)(sums, g, x, at, tap, count, n); break
    switch (taps) {
        SUMS_OF(1);
        SUMS_OF(2);
        SUMS_OF(3);
        SUMS_OF(4);
        SUMS_OF(5);
        SUMS_OF(6);
        SUMS_OF(7);
        SUMS_OF(8);
        SUMS_OF(9);
    }
#undef SUMS_OF
}

/* Add the products of one run of a row, for a block of filters, to their sums. */
TARGET static void
NAME(multiply_run)(const struct NAME(depthwise) *d, ptrdiff_t row, const ptrdiff_t *run, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t from, ptrdiff_t count)
{
    const struct geometry *s = d->s;
    const ptrdiff_t many = s->f / s->c, line = s->w * s->n, area = s->kh * s->kw;
    const float *g = d->g + (row * s->f * s->ow + run[0]) * s->n + from;
    ptrdiff_t at[NAME(SUMMED_TAPS)], tap[NAME(SUMMED_TAPS)], taps = 0;
    for (ptrdiff_t k = 0; k < s->kh; k++) {
        const ptrdiff_t y = NAME(met)(row, k * s->dh, s->sh, s->top, s->h, 0);
        for (ptrdiff_t l = 0; l < s->kw; l++) {
            if (y >= 0 && run[2 + l] >= 0) {
                at[taps] = y * s->c * line + run[2 + l] * s->n + from;
                tap[taps++] = k * s->kw + l;
            }
            if (taps == NAME(SUMMED_TAPS) || (taps && k + 1 == s->kh && l + 1 == s->kw)) {
                for (ptrdiff_t f = begin; f < end; f++)
                    NAME(add_tap_sums)(d->sums + f * area, g + f * s->ow * s->n, d->x + f / many * line, at, tap, taps, count);
                taps = 0;
            }
        }
    }
}

/* Add the sums of a block of filters to their totals, in double precision, and begin again with 0. */
TARGET static void NAME(fold_run)(const struct NAME(depthwise) *d, ptrdiff_t begin, ptrdiff_t end)
{
    for (ptrdiff_t at = begin * d->s->kh * d->s->kw; at < end * d->s->kh * d->s->kw; at++) {
        float lanes[LANES];
        memcpy(lanes, d->sums + at, sizeof lanes);
        for (int lane = 0; lane < LANES; lane++)
            d->total[at] += lanes[lane];
        d->sums[at] = (VEC){0};
    }
}

TARGET static void NAME(depthwise_weights_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(depthwise) *d = context;
    const struct geometry *s = d->s;
    const ptrdiff_t begin = part * d->together, end = min(begin + d->together, s->f), most = NAME(FOLDED_RUN) * LANES;
    ptrdiff_t added = 0;
    (void)worker;
    for (ptrdiff_t row = 0; row < s->oh; row++)
        for (ptrdiff_t r = 0; r < d->runs; r++) {
            const ptrdiff_t *run = d->run + r * (2 + s->kw), lanes = (run[1] - run[0]) * s->n;
            for (ptrdiff_t from = 0; from < lanes; from += most) {
                const ptrdiff_t count = min(lanes - from, most);
                if ((added += count + LANES) > most) {
                    NAME(fold_run)(d, begin, end);
                    added = count + LANES;
                }
                NAME(multiply_run)(d, row, run, begin, end, from, count);
            }
        }
    NAME(fold_run)(d, begin, end);
    for (ptrdiff_t at = begin * s->kh * s->kw; at < end * s->kh * s->kw; at++)
        d->out[at] = (float)d->total[at];
}

/* out[f, k, l] = sum over i, j, n of g[i, f, j, n] * x[i * stride + k * dilation - top, f / (F / C), j * stride + l * dilation - left, n]. */
TARGET static int NAME(depthwise_weights)(const struct geometry *s, const float *x, const float *g, float *out, ptrdiff_t threads)
{
    struct NAME(depthwise) d = {.s = s, .x = x, .g = g, .out = out, .rows = s->oh, .columns = s->ow, .channels = s->f,
                                .seen_rows = s->h, .seen_columns = s->w, .seen_channels = s->c};
    const size_t sums = sizeof(VEC) * (size_t)(s->f * s->kh * s->kw), totals = sizeof *d.total * (size_t)(s->f * s->kh * s->kw);
    d.sums = aligned_alloc(64, whole_lines(sums + totals));
    if (!d.sums || NAME(find_runs)(&d, SHARES * threads)) {
        free(d.sums);
        return NO_MEMORY;
    }
    memset(d.sums, 0, sums + totals);
    d.total = (double *)((char *)d.sums + sums);
    in_parallel(NAME(depthwise_threads)(s, threads), d.blocks, NAME(depthwise_weights_part), &d);
    free(d.run);
    free(d.sums);
    return 0;
}
