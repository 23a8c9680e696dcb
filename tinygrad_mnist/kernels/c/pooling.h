/* Pooling, ReLU and sums of channels, for one instruction set; kernels.h includes this at its end. As fast as memory.

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

/* Average pooling, and max-pooling of few images or of windows that overlap. ------------------------------------------------------------

   Of each row of windows, the rows of the image are combined first, for all columns, and then the columns. So vectors go along a whole row of
   the image, however few images there are, and a sum over a large window has the rounding errors of two short ones. */

struct NAME(lines) {
    const struct geometry *s; /* c channels, windows of kh x kw */
    const float *from;
    float *to, *rows; /* combined rows of the image, for each thread */
    float pad;        /* what is around them: adds nothing */
    ptrdiff_t lines, wide, together, size; /* in a part; columns that windows see; channels that are combined together, and their floats */
};

TARGET static inline VEC NAME(combined)(VEC a, VEC b, const int average) { return average ? a + b : NAME(larger)(a, b); }

TARGET static inline __attribute__((always_inline)) void
NAME(combine_rows)(float *restrict to, const float *restrict from, ptrdiff_t below, ptrdiff_t rows, ptrdiff_t count, const int average)
{
    enum { AT_ONCE = 8 }; /* more rows, a power of 2 apart, would be in each other's way in the cache */
    for (ptrdiff_t first = 0; first < rows; first += AT_ONCE)
        for (ptrdiff_t at = 0; at < count; at += LANES) {
            VEC v = NAME(load)(from + first * below + at, count - at);
            for (ptrdiff_t row = first + 1; row < min(first + AT_ONCE, rows); row++)
                v = NAME(combined)(v, NAME(load)(from + row * below + at, count - at), average);
            NAME(store)(to + at, first ? NAME(combined)(NAME(load)(to + at, count - at), v, average) : v, count - at);
        }
}

/* Copy columns of n numbers that are so many columns apart. */
TARGET static inline void
NAME(move_columns)(float *restrict to, ptrdiff_t step, const float *restrict from, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t n)
{
    if (n == 1 && step == 1 && stride == 2) /* the compiler makes vectors of it */
        for (ptrdiff_t j = 0; j < columns; j++)
            to[j] = from[2 * j];
    else if (n == 1)
        for (ptrdiff_t j = 0; j < columns; j++)
            to[j * step] = from[j * stride];
    else
        for (ptrdiff_t j = 0; j < columns; j++)
            for (ptrdiff_t lane = 0; lane < n; lane++)
                to[j * step * n + lane] = from[j * stride * n + lane];
}

/* One line of the output from a combined line, behind which there is room for a vector. With few images, columns are combined as if there
   were no stride, in `spare`. */
TARGET static inline __attribute__((always_inline)) void
NAME(combine_columns)(const struct geometry *s, const float *restrict line, float *restrict spare, float *restrict to, ptrdiff_t kw, const int average)
{
    const ptrdiff_t n = s->n, few = n < LANES && s->sw > 1, run = few ? (s->ow - 1) * s->sw + 1 : s->sw == 1 ? s->ow : 1, count = run * n;
    const VEC divisor = (VEC){0} + (float)(s->kh * s->kw);
    for (ptrdiff_t j = 0; j < s->ow; j += run)
        for (ptrdiff_t lane = 0; lane < count; lane += LANES) {
            const ptrdiff_t at = few ? lane : NAME(fitted)(lane, count);
            const float *from = line + j * s->sw * n + at;
            VEC v = *(const LOOSE *)from;
            for (ptrdiff_t l = 1; l < kw; l++)
                v = NAME(combined)(v, *(const LOOSE *)(from + l * n), average);
            NAME(store)(few ? spare + at : to + j * n + at, average ? v / divisor : v, few ? LANES : count - at);
        }
    if (few)
        NAME(move_columns)(to, 1, spare, s->sw, s->ow, n);
}

TARGET static inline __attribute__((always_inline)) void NAME(pool_lines)(const struct NAME(lines) *t, ptrdiff_t part, int worker, const int average)
{
    const struct geometry *s = t->s;
    const ptrdiff_t n = s->n, below = s->c * s->w * n, end = min((part + 1) * t->lines, s->oh * s->c), line = t->wide * n;
    float *rows = t->rows + worker * t->size;
    for (ptrdiff_t at = 0; at < t->size; at++)
        rows[at] = t->pad;
    for (ptrdiff_t first = part * t->lines, some; first < end; first += some) {
        const ptrdiff_t c = first % s->c, y = first / s->c * s->sh - s->top;
        const struct range seen = NAME(seen)(y, s->kh, s->h, 0);
        some = min(min(t->together, s->c - c), end - first);
        NAME(combine_rows)(rows + s->left * n, t->from + (y + seen.begin) * below + c * s->w * n, below, seen.end - seen.begin,
                           s->left ? min(s->w, t->wide - s->left) * n : some * line, average);
        for (ptrdiff_t at = 0; at < some; at++) {
            const float *combined = rows + at * line;
            float *to = t->to + (first + at) * s->ow * n, *spare = rows + t->together * line + LANES;
            if (s->kw == 2) /* the usual ones: the compiler unrolls their loops */
                NAME(combine_columns)(s, combined, spare, to, 2, average);
            else if (s->kw == 3)
                NAME(combine_columns)(s, combined, spare, to, 3, average);
            else
                NAME(combine_columns)(s, combined, spare, to, s->kw, average);
        }
    }
}

TARGET static void NAME(sum_lines)(void *context, ptrdiff_t part, int worker) { NAME(pool_lines)(context, part, worker, 1); }

TARGET static void NAME(max_lines)(void *context, ptrdiff_t part, int worker) { NAME(pool_lines)(context, part, worker, 0); }

/* Cut `count` lines, that read `work` floats each, into parts; returns how many, or 0 if there is no memory. */
TARGET static ptrdiff_t NAME(start_lines)(struct NAME(lines) *t, ptrdiff_t count, ptrdiff_t work, ptrdiff_t threads)
{
    t->lines = 1 + SMALL_PART / work;
    const ptrdiff_t parts = (count - 1) / t->lines + 1;
    t->rows = malloc(sizeof(float) * (size_t)(max(min(threads, parts), 1) * t->size));
    return t->rows ? parts : 0;
}

TARGET static int NAME(pool)(const struct geometry *s, const float *x, float *out, ptrdiff_t threads, const int average)
{
    struct NAME(lines) t = {.s = s, .from = x, .to = out, .pad = average ? 0 : -INFINITY};
    t.wide = s->left ? (s->ow - 1) * s->sw + s->kw : s->w;
    t.together = s->left ? 1 : max(min(SMALL_LINES / (s->w * s->n), s->c), 1);
    t.size = (t.together + 1) * t.wide * s->n + 2 * LANES;
    const ptrdiff_t parts = NAME(start_lines)(&t, s->oh * s->c, min(s->kh, s->h) * s->w * s->n, threads);
    if (!parts)
        return NO_MEMORY;
    in_parallel(threads, parts, average ? NAME(sum_lines) : NAME(max_lines), &t);
    free(t.rows);
    return 0;
}

/* out[i, c, j, n] = the sum of a window over its size; padding counts as zeros. */
TARGET static int NAME(average_pool)(const struct geometry *s, const float *x, float *out, ptrdiff_t threads)
{
    return NAME(pool)(s, x, out, threads, 1);
}

/* The windows, from 0 to `count` - 1, that see row or column `at`. */
static inline struct range NAME(seeing_windows)(ptrdiff_t at, ptrdiff_t size, ptrdiff_t step, ptrdiff_t count)
{
    const ptrdiff_t first = at - size + 1;
    return (struct range){first > 0 ? (first + step - 1) / step : 0, min(at / step + 1, count)};
}

/* A line of the gradient from the combined lines of the output's: kw - 1 columns of zeros are on both sides of these. With few images, sw - 1
   columns of zeros are between them. */
TARGET static inline __attribute__((always_inline)) void
NAME(spread_columns)(const struct geometry *s, const float *restrict line, float *restrict to, ptrdiff_t kw)
{
    const ptrdiff_t n = s->n, whole = n < LANES || (s->sw == 1 && s->ow >= kw), run = whole ? s->w : 1, count = run * n, last = kw - 1;
    for (ptrdiff_t x = 0; x < s->w; x += run, to += n) {
        const struct range j = whole ? (struct range){s->left - last, s->left + 1} : NAME(seeing_windows)(x + s->left, kw, s->sw, s->ow);
        const float *from = line + (last + j.begin) * n;
        const ptrdiff_t windows = whole ? kw : j.end - j.begin;
        for (ptrdiff_t lane = 0; lane < count; lane += LANES) {
            const ptrdiff_t at = NAME(fitted)(lane, count);
            VEC v = windows > 0 ? NAME(load)(from + at, count - at) : (VEC){0};
            for (ptrdiff_t l = 1; l < windows; l++)
                v += NAME(load)(from + l * n + at, count - at);
            NAME(store)(to + at, v, count - at);
        }
    }
}

TARGET static void NAME(spread_lines)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(lines) *t = context;
    const struct geometry *s = t->s;
    const ptrdiff_t n = s->n, count = s->ow * n, end = min((part + 1) * t->lines, s->h * s->c);
    const float size = (float)(s->kh * s->kw), share = 1 / size;
    float *rows = t->rows + worker * t->size, *first = rows + (s->kw - 1) * n;
    float *combined = n < LANES && s->sw > 1 ? rows + t->wide * n : first;
    memset(rows, 0, sizeof(float) * (size_t)t->size);
    for (ptrdiff_t line = part * t->lines; line < end; line++) {
        const struct range i = NAME(seeing_windows)(line / s->c + s->top, s->kh, s->sh, s->oh);
        float *to = t->to + line * s->w * n;
        if (i.begin >= i.end) {
            memset(to, 0, sizeof(float) * (size_t)(s->w * n));
            continue;
        }
        const float *from = t->from + (i.begin * s->c + line % s->c) * count;
        for (ptrdiff_t at = 0; at < count; at += LANES) { /* divided first: a sum might overflow */
            VEC v = NAME(load)(from + at, count - at);
            v = i.end - i.begin == 1 ? v / size : v * share;
            for (ptrdiff_t k = 1; k < i.end - i.begin; k++)
                v += NAME(load)(from + k * s->c * count + at, count - at) * share;
            NAME(store)(combined + at, v, count - at);
        }
        if (combined != first)
            NAME(move_columns)(first, s->sw, combined, 1, s->ow, n);
        if (s->kw == 2) /* the usual ones: the compiler unrolls their loops */
            NAME(spread_columns)(s, rows, to, 2);
        else if (s->kw == 3)
            NAME(spread_columns)(s, rows, to, 3);
        else
            NAME(spread_columns)(s, rows, to, s->kw);
    }
}

/* out[y, c, x, n] = the sum of g over the windows that see it, over their size. */
TARGET static int NAME(average_pool_gradient)(const struct geometry *s, const float *g, float *out, ptrdiff_t threads)
{
    struct NAME(lines) t = {.s = s, .from = g, .to = out};
    t.wide = s->w + 2 * s->left + s->kw;
    t.size = (t.wide + s->ow) * s->n;
    const ptrdiff_t parts = NAME(start_lines)(&t, s->h * s->c, s->w * s->n, threads);
    if (!parts)
        return NO_MEMORY;
    in_parallel(threads, parts, NAME(spread_lines), &t);
    free(t.rows);
    return 0;
}

/* Max-pooling. ------------------------------------------------------------------------------------------------------------------------- */

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
    if ((s->n < LANES || (s->kw > 2 && s->sw < s->kw)) && !NAME(pool)(s, x, out, threads, 0)) /* 10 to 60 % faster */
        return;
    t.lines = 1 + SMALL_PART / (s->kh * s->kw * s->ow * s->n);
    in_parallel(threads, (s->oh * s->c - 1) / t.lines + 1, NAME(max_pool_part), &t);
}

/* All bits of the lanes from `lane` on. */
TARGET static inline INT NAME(from_lane)(ptrdiff_t lane)
{
    INT v;
    for (int at = 0; at < LANES; at++)
        v[at] = at < lane ? 0 : -1;
    return v;
}

/* The same as below for few images: vectors go along the windows of a row, some of them at a time. */
TARGET static int NAME(few_to_maxima)(const struct geometry *s, const float *g, const float *top, const float *seen, float *to, ptrdiff_t y, const int nans)
{
    enum { SOME = 512 };
    const ptrdiff_t n = s->n, below = s->c * s->w * n, step = SOME / n;
    const struct range rows = NAME(seen)(y, s->kh, s->h, 0);
    int left[SOME], odd = 0; /* the windows that have not found theirs */
    float values[SOME], passed[SOME];
    for (ptrdiff_t first = 0; first < s->ow; first += step) {
        const ptrdiff_t end = min(first + step, s->ow);
        for (ptrdiff_t at = 0; at < (end - first) * n; at++) {
            const float maximum = top[first * n + at];
            odd |= maximum != maximum;
            left[at] = (maximum != maximum) == nans;
        }
        const ptrdiff_t height = rows.end - rows.begin, taps = height * s->kw;
        for (ptrdiff_t number = 0; number < taps; number++) {
            const ptrdiff_t tap = nans ? taps - 1 - number : number, l = tap % s->kw, shift = l - s->left;
            ptrdiff_t begin = first, last = end; /* the windows whose column l is in the image */
            while (begin < last && begin * s->sw + shift < 0)
                begin++;
            while (last > begin && (last - 1) * s->sw + shift >= s->w)
                last--;
            const ptrdiff_t here = (rows.begin + tap / s->kw) * below + (begin * s->sw + shift) * n, count = (last - begin) * n;
            const float *from = seen + here, *share = g + begin * n, *maximum = top + begin * n;
            int *open = left + (begin - first) * n;
            if (s->sw > 1) {
                NAME(move_columns)(values, 1, from, s->sw, last - begin, n);
                from = values;
            }
            for (ptrdiff_t at = 0; at < count; at++) {
                const int hit = open[at] & (nans ? from[at] != from[at] : from[at] == maximum[at]);
                passed[at] = hit ? share[at] : 0;
                open[at] ^= hit;
            }
            float *d = to + here;
            if (s->sw == 1)
                for (ptrdiff_t at = 0; at < count; at++)
                    d[at] += passed[at];
            else if (n == 1)
                for (ptrdiff_t j = 0; j < last - begin; j++)
                    d[j * s->sw] += passed[j];
            else
                for (ptrdiff_t j = 0; j < last - begin; j++, d += s->sw * n)
                    for (ptrdiff_t lane = 0; lane < n; lane++)
                        d[lane] += passed[j * n + lane];
        }
    }
    return odd;
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
            const ptrdiff_t at = NAME(fitted)(lane, n), count = n - at;
            const VEC maximum = NAME(load)(top + j * n + at, count);
            const INT all = (INT)NAME(load)(g + j * n + at, count), number = maximum == maximum;
            INT left = nans ? ~number : number;
            if ((!alone || nans) && at < lane) /* nothing is added twice */
                left &= NAME(from_lane)(lane - at);
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
            if (s->n < LANES) {
                if (NAME(few_to_maxima)(s, g, top, t->x + image, t->out + image, y, 0))
                    NAME(few_to_maxima)(s, g, top, t->x + image, t->out + image, y, 1);
            } else if (NAME(to_maxima)(s, g, top, t->x + image, t->out + image, y, kh, kw, alone, 0))
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
    const int alone = s->kh == s->sh && s->kw == s->sw && !s->top && !s->left && s->n >= LANES;
    t.lines = alone ? 0 : 1 + (s->n < LANES ? SMALL_PART / s->h : SMALL_PART / 4) / (s->w * s->n);
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
