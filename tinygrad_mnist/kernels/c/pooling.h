/* Pooling and ReLU, for one instruction set; kernels.h includes this at its end. As fast as memory.

   Images are (H, C, W, N) in memory, as everywhere. A call is cut into parts that do not depend on the number of threads; no part writes what
   another does. */

struct NAME(images) {
    const struct geometry *s; /* c channels, windows of kh x kw */
    const float *x, *top, *g;
    float *out;
    ptrdiff_t lines; /* in a part: output lines of `max_pool`, channels of its gradient, or 0 */
};

TARGET static inline VEC NAME(larger)(VEC a, VEC b) /* NaN if there is one; the first of equal numbers */
{
    const INT left = (a >= b) | (a != a);
    return (VEC)((left & (INT)a) | (~left & (INT)b));
}

/* The part of windows of `size` that lies in an image of `length`, if they begin at `first`; with `inside` they do. */
static inline struct range NAME(seen)(ptrdiff_t first, ptrdiff_t size, ptrdiff_t length, int inside)
{
    return inside ? (struct range){0, size} : (struct range){max(-first, 0), min(size, length - first)};
}

/* out[i, c, j, n] = the maximum of a window, the first of equal ones; NaN if there is one. Padding takes no part. */
TARGET static inline void NAME(max_pool_line)(const struct NAME(images) *t, ptrdiff_t line, ptrdiff_t kh, ptrdiff_t kw, int inside)
{
    const struct geometry *s = t->s;
    const ptrdiff_t n = s->n, below = s->c * s->w * n, y = line / s->c * s->sh - s->top;
    const struct range rows = NAME(seen)(y, kh, s->h, inside);
    float *to = t->out + line * s->ow * n;
    for (ptrdiff_t j = 0; j < s->ow; j++, to += n) {
        const ptrdiff_t left = j * s->sw - s->left;
        const struct range columns = NAME(seen)(left, kw, s->w, inside);
        const float *corner = t->x + (y + rows.begin) * below + (line % s->c * s->w + left + columns.begin) * n;
        const ptrdiff_t height = rows.end - rows.begin, width = columns.end - columns.begin;
        for (ptrdiff_t lane = 0; lane < n; lane += LANES) {
            const ptrdiff_t at = NAME(fitted)(lane, n), count = n - at;
            VEC top = NAME(load)(corner + at, count);
            for (ptrdiff_t k = 0; k < height; k++)
                for (ptrdiff_t l = 0; l < width; l++)
                    if (k || l)
                        top = NAME(larger)(top, NAME(load)(corner + k * below + l * n + at, count));
            NAME(store)(to + at, top, count);
        }
    }
}

TARGET static void NAME(max_pool_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(images) *t = context;
    const struct geometry *s = t->s;
    const ptrdiff_t first = part * t->lines, end = min(first + t->lines, s->oh * s->c);
    (void)worker;
    for (ptrdiff_t line = first; line < end; line++)
        if (s->kh == 2 && s->kw == 2 && !s->top && !s->left) /* the usual ones: the compiler unrolls their loops */
            NAME(max_pool_line)(t, line, 2, 2, 1);
        else
            NAME(max_pool_line)(t, line, s->kh, s->kw, 0);
}

TARGET static void NAME(max_pool)(const struct geometry *s, const float *x, float *out, ptrdiff_t threads)
{
    struct NAME(images) t = {.s = s, .x = x, .out = out};
    t.lines = 1 + SMALL_PART / (s->kh * s->kw * s->ow * s->n);
    in_parallel(threads, (s->oh * s->c - 1) / t.lines + 1, NAME(max_pool_part), &t);
}

/* Of a row of windows whose maxima are `top`, add each gradient to `to` where the window, from `seen` on, first has its maximum; or, of those
   with NaN (`nans`), where it has its last one. `alone`: windows do not overlap, and what they hold is to be written. Returns whether there
   is NaN. */
TARGET static inline int NAME(to_maxima)(const struct geometry *s, const float *g, const float *top, const float *seen, float *to, ptrdiff_t y,
                                         ptrdiff_t kh, ptrdiff_t kw, int alone, int nans)
{
    const ptrdiff_t n = s->n, below = s->c * s->w * n;
    const struct range rows = NAME(seen)(y, kh, s->h, alone);
    INT odd = {0};
    for (ptrdiff_t number_j = 0; number_j < s->ow; number_j++) {
        const ptrdiff_t j = alone ? number_j : s->ow - 1 - number_j, x = j * s->sw - s->left;
        const struct range columns = NAME(seen)(x, kw, s->w, alone);
        const ptrdiff_t height = rows.end - rows.begin, width = columns.end - columns.begin;
        const ptrdiff_t corner = rows.begin * below + (x + columns.begin) * n, last = (height - 1) * below + (width - 1) * n;
        for (ptrdiff_t lane = 0; lane < n; lane += LANES) {
            const ptrdiff_t at = alone && !nans ? NAME(fitted)(lane, n) : lane, count = n - at; /* nothing is added twice */
            const VEC maximum = NAME(load)(top + j * n + at, count);
            const INT all = (INT)NAME(load)(g + j * n + at, count), number = maximum == maximum;
            INT left = nans ? ~number : number;
            odd |= ~number;
            for (ptrdiff_t k = 0; k < height; k++)
                for (ptrdiff_t l = 0; l < width; l++) {
                    const ptrdiff_t tap = k * below + l * n, here = corner + at + (nans ? last - tap : tap);
                    const VEC v = NAME(load)(seen + here, count);
                    const INT hit = left & (nans ? v != v : v == maximum);
                    const VEC passed = (VEC)(all & hit);
                    left &= ~hit;
                    NAME(store)(to + here, alone && !nans ? passed : NAME(load)(to + here, count) + passed, count);
                }
        }
    }
    return NAME(any)(odd, min(n, LANES));
}

/* Clear the lines of rows of a channel from column `from` on. */
TARGET static inline void NAME(clear)(const struct geometry *s, float *out, struct range rows, ptrdiff_t from)
{
    for (ptrdiff_t row = rows.begin; row < rows.end; row++)
        memset(out + (row * s->c * s->w + from) * s->n, 0, sizeof(float) * (size_t)((s->w - from) * s->n));
}

/* out[y, c, x, n] = the sum of g over the windows whose maximum is there, for some rows of windows and some channels. Rows come from the last to
   the first, and columns, too, where windows overlap: in that order reference.py adds up. */
TARGET static inline void NAME(max_pool_rows)(const struct NAME(images) *t, struct range windows, struct range channels, ptrdiff_t kh, ptrdiff_t kw,
                                              int alone)
{
    const struct geometry *s = t->s;
    const ptrdiff_t line = s->w * s->n, below = s->c * line;
    ptrdiff_t zero = windows.end == s->oh ? s->h : windows.end * kh; /* the rows from here on are, or hold gradients */
    for (ptrdiff_t i = windows.end; i-- > windows.begin;) {
        const ptrdiff_t y = i * s->sh - s->top, end = alone ? y + kh : max(y, 0);
        for (ptrdiff_t c = channels.begin; c < channels.end; c++) {
            const ptrdiff_t first = (i * s->c + c) * s->ow * s->n, image = y * below + c * line;
            const float *g = t->g + first, *top = t->top + first;
            NAME(clear)(s, t->out + c * line, (struct range){end, zero}, 0);
            if (alone && s->ow * kw < s->w)
                NAME(clear)(s, t->out + c * line, (struct range){y, end}, s->ow * kw);
            if (NAME(to_maxima)(s, g, top, t->x + image, t->out + image, y, kh, kw, alone, 0))
                NAME(to_maxima)(s, g, top, t->x + image, t->out + image, y, kh, kw, alone, 1);
        }
        zero = min(zero, max(y, 0));
    }
    if (!alone) /* else it is 0 */
        for (ptrdiff_t c = channels.begin; c < channels.end; c++)
            NAME(clear)(s, t->out + c * line, (struct range){0, zero}, 0);
}

TARGET static void NAME(max_pool_gradient_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(images) *t = context;
    const struct geometry *s = t->s;
    const struct range row = {part, part + 1}, every_row = {0, s->oh}, every_channel = {0, s->c};
    (void)worker;
    if (!t->lines && s->kh == 2 && s->kw == 2)
        NAME(max_pool_rows)(t, row, every_channel, 2, 2, 1);
    else if (!t->lines)
        NAME(max_pool_rows)(t, row, every_channel, s->kh, s->kw, 1);
    else
        NAME(max_pool_rows)(t, every_row, (struct range){part * t->lines, min((part + 1) * t->lines, s->c)}, s->kh, s->kw, 0);
}

/* Windows that lie side by side are dealt out by rows, others by channels, several of them if their lines are short. */
TARGET static void NAME(max_pool_gradient)(const struct geometry *s, const float *g, const float *x, const float *top, float *out, ptrdiff_t threads)
{
    struct NAME(images) t = {.s = s, .x = x, .top = top, .g = g, .out = out};
    const int alone = s->kh == s->sh && s->kw == s->sw && !s->top && !s->left;
    t.lines = alone ? 0 : 1 + SMALL_PART / 4 / (s->w * s->n);
    const ptrdiff_t parts = alone ? s->oh : (s->c - 1) / t.lines + 1;
    in_parallel(s->h * s->c * s->w * s->n < SMALL_PART ? 1 : threads, parts, NAME(max_pool_gradient_part), &t);
}

/* ReLU and its gradient. ---------------------------------------------------------------------------------------------------------------- */

struct NAME(numbers) {
    ptrdiff_t count;
    const float *g, *x;
    float *out;
};

TARGET static void NAME(relu_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(numbers) *t = context;
    const ptrdiff_t end = min(t->count, (part + 1) * SMALL_PART);
    (void)worker;
    for (ptrdiff_t at = part * SMALL_PART; at < end; at += LANES) {
        const VEC x = NAME(load)(t->x + at, end - at);
        NAME(store)(t->out + at, (VEC)((INT)NAME(load)(t->g + at, end - at) & ~(x <= 0)), end - at);
    }
}

/* out[i] = 0 where x[i] <= 0, else (where it is NaN, too) g[i]: ReLU's gradient, and with g = x ReLU itself. */
TARGET static void NAME(relu_gradient)(ptrdiff_t count, const float *g, const float *x, float *out, ptrdiff_t threads)
{
    struct NAME(numbers) t = {count, g, x, out};
    in_parallel(threads, (count - 1) / SMALL_PART + 1, NAME(relu_part), &t);
}

/* Sums over all but the channels. ------------------------------------------------------------------------------------------------------- */

struct NAME(sums) {
    ptrdiff_t rows, channels, length;
    const float *x;
    float *out;
};

TARGET static void NAME(sum_part)(void *context, ptrdiff_t channel, int worker)
{
    const struct NAME(sums) *t = context;
    double total = 0;
    (void)worker;
    for (ptrdiff_t row = 0; row < t->rows; row++) {
        const float *line = t->x + (row * t->channels + channel) * t->length;
        for (ptrdiff_t at = 0; at < t->length;) {
            VEC sum[4] = {{0}, {0}, {0}, {0}}; /* of 16 vectors: then they are added up in double precision */
            const ptrdiff_t end = min(t->length, at + 16 * LANES);
            for (; at + 4 * LANES <= end; at += 4 * LANES)
                for (int v = 0; v < 4; v++)
                    sum[v] += *(const LOOSE *)(line + at + v * LANES);
            for (; at < end; at += LANES)
                sum[0] += NAME(load)(line + at, end - at);
            total += NAME(across)((sum[0] + sum[1]) + (sum[2] + sum[3]));
        }
    }
    t->out[channel] = (float)total;
}

/* out[c] = the sum of x over rows and columns, for x of (rows, channels, length): the gradient of a bias. */
TARGET static void NAME(channel_sums)(ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t length, const float *x, float *out, ptrdiff_t threads)
{
    struct NAME(sums) t = {rows, channels, length, x, out};
    in_parallel(rows * channels * length < SMALL_PART ? 1 : threads, channels, NAME(sum_part), &t);
}
