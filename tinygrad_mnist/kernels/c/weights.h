/* Gradients by weights, for one instruction set; kernels.h includes this. */

/* to[q][f] = from[f * stride + q], for LANES columns and rows, or fewer. */
TARGET static inline __attribute__((always_inline)) void
NAME(turn)(const float *from, ptrdiff_t stride, ptrdiff_t filters, ptrdiff_t count, VEC *restrict to)
{
    if (filters < LANES || count < LANES) {
        for (ptrdiff_t q = 0; q < count; q++)
            for (ptrdiff_t f = 0; f < filters; f++)
                to[q][f] = from[f * stride + q];
        return;
    }
    VEC v[LANES], next[LANES];
    UNROLLED
    for (int f = 0; f < LANES; f++)
        v[f] = *(const LOOSE *)(from + f * stride);
    UNROLLED
    for (int size = 1; size < LANES; size *= 2) { /* each time the first and the second half are interleaved */
        UNROLLED
        for (int f = 0; f < LANES / 2; f++) {
            next[2 * f] = SHUFFLE(v[f], v[f + LANES / 2], INTERLEAVED(0));
            next[2 * f + 1] = SHUFFLE(v[f], v[f + LANES / 2], INTERLEAVED(LANES / 2));
        }
        UNROLLED
        for (int f = 0; f < LANES; f++)
            v[f] = next[f];
    }
    UNROLLED
    for (int q = 0; q < LANES; q++)
        to[q] = v[q];
}

/* Lower a row of the output's gradient, two vectors of filters innermost: (point, f / (2 * LANES), lane, f % (2 * LANES)), f up to a multiple
   of LANES.

   Winograd: point p holds (A' g)[p] of four columns g. A twentieth to a tenth of a weight gradient's time. */
TARGET static void
NAME(lower_gradient)(const struct geometry *s, const struct plan *p, const float *g, ptrdiff_t first, ptrdiff_t units, ptrdiff_t filters,
                     float *to)
{
    const ptrdiff_t stride = s->ow * s->n, point = p->tiles * TILE * filters, columns = p->columns;
    const ptrdiff_t width = p->points > 1 ? s->n : units * s->n;
    VEC a[COLUMNS][LANES] = {{{0}}}; /* filters and columns that there are not stay 0 */
    for (ptrdiff_t u = 0; u < (p->points > 1 ? units : 1); u++) {
        const ptrdiff_t column = (first + u) * columns, present = min(columns, s->ow - column);
        if (present < columns)
            memset(a, 0, sizeof a);
        for (ptrdiff_t f = 0; f < s->f; f += LANES) {
            const ptrdiff_t there = min(s->f - f, LANES), wide = min(filters - f + f % (2 * LANES), 2 * LANES);
            if (there < LANES)
                memset(a, 0, sizeof a);
            for (ptrdiff_t lane = 0; lane < width; lane += LANES) {
                const ptrdiff_t at = NAME(fitted)(lane, width), count = min(width - at, LANES);
                float *d = to + (f - f % (2 * LANES)) * p->tiles * TILE + (u * p->lanes + at) * wide + f % (2 * LANES);
                for (ptrdiff_t j = 0; j < present; j++)
                    NAME(turn)(g + f * stride + (column + j) * s->n + at, stride, there, count, a[j]);
                for (ptrdiff_t q = 0; q < count; q++, d += wide) {
                    *(VEC *)d = a[0][q];
                    if (columns > 1) {
                        const VEC even = a[0][q] + A2 * a[2][q], odd = A1 * (a[1][q] + A2 * a[3][q]);
                        const VEC even2 = a[0][q] + B2 * a[2][q], odd2 = B1 * (a[1][q] + B2 * a[3][q]);
                        *(VEC *)(d + point) = even + odd;
                        *(VEC *)(d + 2 * point) = even - odd;
                        *(VEC *)(d + 3 * point) = even2 + odd2;
                        *(VEC *)(d + 4 * point) = even2 - odd2;
                        *(VEC *)(d + 5 * point) = a[3][q];
                    }
                }
            }
        }
    }
}

/* total[r][f] += sum over lanes of v[r][lane] * g[lane][f], for `rows` rows and `wide` vectors of filters; tiles of v are `chunk` floats apart.

   The sums stay in registers: for each lane `wide` loads and `rows` broadcasts. 95-105 GFLOP/s. */
TARGET static inline __attribute__((always_inline)) void
NAME(outer)(float *restrict total, ptrdiff_t filters, const float *restrict v, ptrdiff_t chunk, const float *restrict g, ptrdiff_t lanes,
            const int rows, const int wide)
{
    VEC sum[2 * ROWS][2];
    UNROLLED
    for (int r = 0; r < rows; r++)
        UNROLLED
        for (int j = 0; j < wide; j++)
            sum[r][j] = (VEC){0};
    for (; lanes > 0; lanes -= TILE, v += chunk)
        for (ptrdiff_t lane = 0; lane < min(lanes, TILE); lane++, g += wide * LANES) {
            VEC a[2];
            UNROLLED
            for (int j = 0; j < wide; j++)
                a[j] = *(const VEC *)(g + j * LANES);
            UNROLLED
            for (int r = 0; r < rows; r++)
                UNROLLED
                for (int j = 0; j < wide; j++)
                    sum[r][j] += v[r * TILE + lane] * a[j];
        }
    UNROLLED
    for (int r = 0; r < rows; r++)
        UNROLLED
        for (int j = 0; j < wide; j++)
            *(VEC *)(total + r * filters + j * LANES) += sum[r][j];
}

TARGET static void
NAME(outers)(float *total, ptrdiff_t filters, const float *v, ptrdiff_t chunk, const float *g, ptrdiff_t all, ptrdiff_t lane,
             ptrdiff_t lanes, ptrdiff_t rows, struct ahead *ahead)
{
#define OUTERS(count, wide) \
    for (; r + (count) <= rows; r += (count)) \
        fetch(ahead), NAME(outer)(total + r * filters + f, filters, v + r * TILE, chunk, g + f * all + lane * (wide) * LANES, lanes, count, wide)
    ptrdiff_t f = 0, r;
    for (; f + 2 * LANES <= filters; f += 2 * LANES) {
        r = 0;
        OUTERS(ROWS, 2);
        OUTERS(ROWS / 2, 2);
        OUTERS(ROWS / 4, 2);
        OUTERS(1, 2);
    }
    if (f < filters) {
        r = 0;
        OUTERS(2 * ROWS, 1);
        OUTERS(ROWS, 1);
        OUTERS(ROWS / 2, 1);
        OUTERS(ROWS / 4, 1);
        OUTERS(1, 1);
    }
#undef OUTERS
}

/* total[r][f] += v[r][lane] * g[f][lane], vectors of lanes, for `rows` rows of v, whose tiles are `chunk` floats apart, and `wide` filters.

   The sums stay in registers, as many as in `outer`; for each vector rows + wide loads. */
TARGET static inline __attribute__((always_inline)) void
NAME(dot)(VEC *restrict total, ptrdiff_t filters, const float *const *v, ptrdiff_t chunk, const float *restrict g, ptrdiff_t stride,
          ptrdiff_t lanes, const int rows, const int wide)
{
    VEC sum[DOT_ROWS][DOT_WIDE];
    UNROLLED
    for (int r = 0; r < rows; r++)
        UNROLLED
        for (int f = 0; f < wide; f++)
            sum[r][f] = (VEC){0};
    ptrdiff_t lane = 0, at = 0;
    for (; lane + LANES <= lanes; lane += LANES, at = lane / TILE * chunk + lane % TILE) {
        VEC b[DOT_WIDE];
        UNROLLED
        for (int f = 0; f < wide; f++)
            b[f] = *(const LOOSE *)(g + f * stride + lane);
        UNROLLED
        for (int r = 0; r < rows; r++)
            UNROLLED
            for (int f = 0; f < wide; f++)
                sum[r][f] += *(const VEC *)(v[r] + at) * b[f];
    }
    UNROLLED
    for (int r = 0; r < rows; r++)
        UNROLLED
        for (int f = 0; f < wide; f++)
            total[r * filters + f] += sum[r][f];
    for (int r = 0; r < rows && lane < lanes; r++) /* apart from the loop: a call in it would keep the sums out of the registers */
        for (int f = 0; f < wide; f++)
            total[r * filters + f] += NAME(load)(v[r] + at, lanes - lane) * NAME(load)(g + f * stride + lane, lanes - lane);
}

/* The same for all of so many rows of so many `taps`, v[tap] + offset the first of each, and for all filters.

   For few of both, where turning g would take longer than using it: vectors go along the lanes, and are summed across at the very end. */
TARGET static void
NAME(dots)(VEC *total, ptrdiff_t filters, const float *const *v, ptrdiff_t offset, ptrdiff_t chunk, const float *g, ptrdiff_t stride,
           ptrdiff_t lanes, ptrdiff_t taps, ptrdiff_t rows)
{
#define DOTS(count, wide) \
    for (; f + (wide) <= filters; f += (wide)) \
        NAME(dot)(total + r * filters + f, filters, from, chunk, g + f * stride, stride, lanes, count, wide)
    for (ptrdiff_t r = 0, count; r < taps * rows; r += count) {
        const float *from[DOT_ROWS];
        ptrdiff_t f = 0;
        count = taps * rows - r < DOT_ROWS ? 1 : DOT_ROWS;
        for (ptrdiff_t at = 0; at < count; at++)
            from[at] = v[(r + at) / rows] + offset + (r + at) % rows * TILE;
        if (count > 1) {
            DOTS(DOT_ROWS, DOT_WIDE);
            DOTS(DOT_ROWS, 1);
        } else {
            DOTS(1, DOT_WIDE);
            DOTS(1, 1);
        }
    }
#undef DOTS
}

/* The textbook's sum for one weight, over the pixels that it meets inside the image; reads image and gradient where they lie. */
TARGET static float
NAME(one_weight)(const struct geometry *s, const float *x, const float *g, ptrdiff_t f, ptrdiff_t c, ptrdiff_t k, ptrdiff_t l)
{
    ptrdiff_t begin = 0, end = s->ow;
    while (begin < end && begin * s->sw + l < s->left)
        begin++;
    while (end > begin && (end - 1) * s->sw + l - s->left >= s->w)
        end--;
    const ptrdiff_t run = s->sw == 1 ? end - begin : 1, count = run * s->n; /* output columns that see neighbours */
    double total = 0;
    VEC sum[2] = {{0}, {0}};
    ptrdiff_t unfolded = 0;
    for (ptrdiff_t i = 0; i < s->oh; i++) {
        const ptrdiff_t y = i * s->sh + k - s->top;
        for (ptrdiff_t j = y >= 0 && y < s->h ? begin : end; j < end; j += run) {
            const float *a = g + ((i * s->f + f) * s->ow + j) * s->n, *b = x + ((y * s->c + c) * s->w + j * s->sw + l - s->left) * s->n;
            ptrdiff_t lane = 0;
            for (; lane + 2 * LANES <= count; lane += 2 * LANES) {
                sum[0] += *(const LOOSE *)(a + lane) * *(const LOOSE *)(b + lane);
                sum[1] += *(const LOOSE *)(a + lane + LANES) * *(const LOOSE *)(b + lane + LANES);
            }
            for (; lane < count; lane += LANES)
                sum[0] += NAME(load)(a + lane, count - lane) * NAME(load)(b + lane, count - lane);
            unfolded += count;
        }
        if (unfolded >= FOLDED * 2 * LANES || i + 1 == s->oh) {
            total += NAME(across)(sum[0]) + NAME(across)(sum[1]);
            sum[0] = sum[1] = (VEC){0};
            unfolded = 0;
        }
    }
    return (float)total;
}

struct NAME(weights) {
    const struct geometry *s;
    struct plan p;
    struct ring *rings;
    const float *x, *g;
    int few;                                /* whether `part` holds vectors of sums, to be summed across at the end */
    ptrdiff_t most;                         /* lanes that are summed in float32 */
    ptrdiff_t filters, wide, chunks;        /* filters, up to whole vectors; how many of them a part of the work has; so many times */
    ptrdiff_t size, results;                /* floats that are summed up; how many times that is done, for different images or pixels */
    float *result;                          /* all sums; at last, the first ones are the largest points of each row of a kernel */
    double *own;                            /* of each thread, for parts with more lanes */
    float *out;
    struct spread *spread; /* for some channels each, and behind them for all */
};

/* Add what was summed up in `part` to `own`, or write it there. */
TARGET static void NAME(fold)(double *own, const float *part, ptrdiff_t size, int few, int add)
{
    for (ptrdiff_t at = 0; at < size; at++)
        own[at] = (add ? own[at] : 0) + (few ? NAME(across)(((const VEC *)part)[at]) : part[at]);
}

/* Where the sums of row `row` and filter f are: (f / wide, point, row, f % wide); and how far on those of the next row. */
static inline ptrdiff_t NAME(place_of)(const struct NAME(weights) *t, ptrdiff_t row, ptrdiff_t f, ptrdiff_t *next)
{
    const ptrdiff_t first = f - f % t->wide;
    *next = min(t->wide, t->filters - first);
    return t->size / t->filters * first + row * *next + f - first;
}

/* Add up the products of a strip and a block of rows; some filters, up to whole vectors, from the first of s on. */
TARGET static void
NAME(weight_block)(const struct NAME(weights) *t, const struct geometry *s, const float *g, ptrdiff_t filters, ptrdiff_t number,
                   const struct ring *ring, struct sums *sums)
{
    const struct plan *p = &t->p;
    const ptrdiff_t chunk = p->chunk, point = s->kh * p->rows * filters, gradient = p->tiles * TILE * filters;
    const ptrdiff_t first = number / p->blocks * p->strip, begin = number % p->blocks * p->height, end = min(begin + p->height, s->oh);
    const ptrdiff_t units = next_strip(p, ring, first), width = units * p->lanes;
    const int few = t->few;
    float *part = ring->more;
    for (ptrdiff_t i = begin; i < end; i++, sums->unfolded += width) {
        if (sums->unfolded >= t->most) {
            NAME(fold)(sums->own, part, sums->size, few, sums->folds++);
            memset(part, 0, sizeof *part * (size_t)(few ? sums->size * LANES : sums->size));
            sums->unfolded = 0;
        }
        const struct range k = NAME(ready)(s, p, ring, t->x, i, first, units);
        const float *row = g + i * t->s->f * s->ow * s->n;
        if (k.begin < k.end && !few)
            NAME(lower_gradient)(s, p, row, first, units, filters, part + sums->size);
        struct ahead ahead[2] = {{0}, {0}};
        if (i + 1 < end && !few) {
            ahead[0] = seen_by(s, p, t->x, i + 1, first);
            ahead[1] = written_to(s, p, row + t->s->f * s->ow * s->n, s->ow * s->n, first);
        }
        const ptrdiff_t outers = ((width - 1) / TOGETHER + 1) * ((p->rows - 1) / ROWS + 1) * ((filters - 1) / (2 * LANES) + 1);
        share_out(ahead, p->points * (k.end - k.begin) * outers);
        for (ptrdiff_t q = 0; q < p->points; q++)
            for (ptrdiff_t lane = 0; lane < width; lane += few ? FOLDED : TOGETHER) {
                const ptrdiff_t offset = q * p->tiles * chunk + lane / TILE * chunk;
                if (few)
                    NAME(dots)((VEC *)part + k.begin * p->rows * filters, filters, ring->rows + k.begin, offset, chunk,
                               row + first * s->n + lane, s->ow * s->n, min(width - lane, FOLDED), k.end - k.begin, p->rows);
                for (ptrdiff_t at = k.begin; at < (few ? k.begin : k.end); at++)
                    NAME(outers)(part + q * point + at * p->rows * filters, filters, ring->rows[at] + offset, chunk,
                                 part + sums->size + q * gradient, p->tiles * TILE, lane, min(width - lane, TOGETHER), p->rows, ahead);
            }
    }
}

/* Add up the products of some filters and of some strips and blocks of rows. */
TARGET static void NAME(weight_part)(void *context, ptrdiff_t number, int worker)
{
    const struct NAME(weights) *t = context;
    const struct ring *ring = &t->rings[worker];
    const ptrdiff_t first = number % t->chunks * t->wide, filters = min(t->wide, t->filters - first);
    const ptrdiff_t blocks = t->p.strips * t->p.blocks, result = number / t->chunks, begin = blocks * result / t->results;
    const float *part = ring->more, *g = t->g + first * t->s->ow * t->s->n;
    float *to = t->result + result * t->size + t->size / t->filters * first;
    struct geometry s = *t->s;
    struct sums sums = {.own = t->own + worker * t->size, .size = t->size / t->filters * filters};
    s.f = min(s.f - first, filters);
    memset(ring->more, 0, sizeof(float) * (size_t)(t->few ? sums.size * LANES : sums.size));
    if (t->chunks > 1) /* the lowered gradient begins elsewhere than that of other filters; lanes without images must be finite */
        memset(ring->more + sums.size, 0, sizeof(float) * (size_t)(t->p.points * t->p.tiles * TILE * filters));
    for (ptrdiff_t block = begin; block < blocks * (result + 1) / t->results; block++)
        NAME(weight_block)(t, &s, g, filters, block, ring, &sums);
    if (sums.folds)
        NAME(fold)(sums.own, part, sums.size, t->few, 1);
    for (ptrdiff_t at = 0; at < sums.size; at++)
        to[at] = sums.folds ? (float)sums.own[at] : t->few ? NAME(across)(((const VEC *)part)[at]) : part[at];
}

/* total[f] = the sum of all results, in their order, for each of LANES filters. */
TARGET static inline void NAME(add_results)(const struct NAME(weights) *t, const float *result, double *total)
{
    for (int f = 0; f < LANES; f++)
        total[f] = 0;
    for (ptrdiff_t part = 0; part < t->results; part++, result += t->size)
        for (int f = 0; f < LANES; f++)
            total[f] += result[f];
}

/* Write the gradients of some channels: of points, G' of their totals. */
TARGET static void NAME(gradient_part)(void *context, ptrdiff_t part, int worker)
{
    struct NAME(weights) *t = context;
    const struct geometry *s = t->s;
    const ptrdiff_t rows = s->kh * t->p.rows, step = s->c * s->kh * s->kw;
    struct spread *spread = t->spread + part;
    double v[POINTS][LANES], column[3][LANES] = {{0}}, all[LANES] = {0}; /* as in the structure, but apart for vectors */
    float d[3][LANES], size[LANES];
    (void)worker;
    for (ptrdiff_t c = part * CHANNELS; c < min((part + 1) * CHANNELS, s->c); c++)
        for (ptrdiff_t k = 0; k < s->kh; k++)
            for (ptrdiff_t first = 0; first < s->f; first += LANES) { /* the totals of all filters lie side by side */
                ptrdiff_t count = min(s->f - first, LANES), next;
                float *u = t->result + NAME(place_of)(t, k * t->p.rows + c, first, &next);
                float *to = t->out + ((first * s->c + c) * s->kh + k) * s->kw;
                for (ptrdiff_t l = 0; t->p.points == 1 && l < s->kw; l++) {
                    NAME(add_results)(t, u + l * s->c * next, v[0]);
                    for (ptrdiff_t f = 0; f < count; f++)
                        to[f * step + l] = (float)v[0][f];
                }
                if (t->p.points == 1)
                    continue;
                for (int q = 0; q < POINTS; q++)
                    NAME(add_results)(t, u + q * rows * next, v[q]);
                for (int f = 0; f < LANES; f++) {
                    const double most = fmost(fmost(fmost(v[0][f], v[1][f]), fmost(v[2][f], v[3][f])), fmost(v[4][f], v[5][f]));
                    const double even = GA * (v[1][f] + v[2][f]), odd = GA * A1 * (v[1][f] - v[2][f]);
                    const double even2 = GB * (v[3][f] + v[4][f]), odd2 = GB * B1 * (v[3][f] - v[4][f]);
                    d[0][f] = (float)(G0 * v[0][f] + (even + even2));
                    d[1][f] = (float)(odd + odd2);
                    d[2][f] = (float)(A2 * even + B2 * even2 + v[5][f]);
                    size[f] = u[f] = (float)most;
                    all[f] += most;
                    for (int l = 0; l < 3; l++)
                        column[l][f] += fabsf(d[l][f]);
                }
                for (ptrdiff_t f = 0; f < count; f++) {
                    for (int l = 0; l < 3; l++)
                        to[f * step + l] = d[l][f];
                    spread->exponents[magnitude(size[f]) >> 23]++;
                }
            }
    for (int f = 0; f < LANES; f++) {
        for (int l = 0; l < 3; l++)
            spread->column[l] += column[l][f];
        spread->all += all[f];
    }
}

static void NAME(gather)(void *context, ptrdiff_t part, int worker) /* what is known of all channels */
{
    const struct NAME(weights) *t = context;
    struct spread *all = t->spread + (t->s->c - 1) / CHANNELS + 1;
    (void)part, (void)worker;
    for (const struct spread *some = t->spread; some < all; some++) {
        for (int l = 0; l < 3; l++)
            all->column[l] += some->column[l];
        all->all += some->all;
        for (int e = 0; e < 256; e++)
            all->exponents[e] += some->exponents[e];
    }
}

/* Compute the gradients of weights of some channels again that are not right as sums of points, or not finite. */
TARGET static void NAME(correct_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(weights) *t = context;
    const struct geometry *s = t->s;
    const struct spread *all = t->spread + (s->c - 1) / CHANNELS + 1;
    const float usual = number(smaller(low_quantile(all->exponents), magnitude(HIGH))), cancelled = (float)min(2 * s->n * s->oh * s->ow, CANCELLED);
    int weak = 0; /* a bit for each such column of the kernel */
    (void)worker;
    for (int l = 0; l < 3 && t->p.points > 1; l++)
        weak |= (all->column[l] * WEAK < all->all) << l;
    for (ptrdiff_t f = 0; f < s->f; f++)
        for (ptrdiff_t c = part * CHANNELS; c < min((part + 1) * CHANNELS, s->c); c++)
            for (ptrdiff_t k = 0; k < s->kh; k++) {
                float *d = t->out + ((f * s->c + c) * s->kh + k) * s->kw, least = 0;
                if (t->p.points > 1) {
                    ptrdiff_t next;
                    const float size = t->result[NAME(place_of)(t, k * t->p.rows + c, f, &next)];
                    if (size > LARGEST || (size > 0 && size < FAINTEST))
                        least = INFINITY;
                    else if (size > OUTLIER * usual)
                        least = size / cancelled;
                }
                for (ptrdiff_t l = 0; l < s->kw; l++)
                    if (!(fabsf(d[l]) >= least && fabsf(d[l]) <= FLT_MAX) || (l < 3 && weak & 1 << l))
                        d[l] = NAME(one_weight)(s, t->x, t->g, f, c, k, l);
            }
}

/* out[f, c, k, l] = sum over i, j, n of g[i, f, j, n] * x[i * stride + k - top, c, j * stride + l - left, n].

   Strips and ring as in `convolve`. The gradient is turned, so that vectors go along the filters and nothing is summed across lanes. Sums of
   TOGETHER lanes are added to `part`, and that, every 4 * FOLDED lanes or so, in float64 to others: errors do not grow with the images. The work is cut
   into the same parts for any number of threads, and what they give is added in their order. Textbook: 33-66 GFLOP/s for one input
   channel, 80-110 for more. Winograd: 105-195.

   A weight whose sum is not finite, or much smaller than unusually large ones that its neighbours share, is computed again by itself: it may
   not see what is large, and padding takes no part. So is a column of the kernel whose gradients are all much smaller. */
TARGET static int NAME(weight_gradient)(const struct geometry *s, const float *x, const float *g, float *out, ptrdiff_t threads)
{
    struct NAME(weights) t = {.s = s, .p = make_plan(s, LANES, TILE, POINTS, 0), .x = x, .g = g, .out = out};
    const ptrdiff_t whole = (s->f + LANES - 1) / LANES * LANES, rows = s->kh * t.p.rows, channels = (s->c - 1) / CHANNELS + 1;
    struct ring rings[MOST_WORKERS + 1];
    threads = useful_threads(s, threads);
    cut(s, &t.p, min((PARTS - 1) / t.p.strips + 1, s->oh / (2 * s->kh - 1)));
    t.few = t.p.points == 1 && rows * s->f <= FEW && (rows < 16 || s->f < whole);
    t.most = t.few ? FOLDED * LANES : 4 * FOLDED;
    t.filters = t.few ? s->f : whole;
    t.size = t.p.points * rows * t.filters;
    /* a part of the work has so many filters at most, pairs of vectors of them; then so many pieces, each with so many lanes at most */
    const ptrdiff_t two = 2 * LANES, most = t.few ? max(t.filters, two) : max(PART / (ptrdiff_t)sizeof(float) / (t.p.points * rows) / two, 1) * two;
    const ptrdiff_t chunks = (t.filters - 1) / most + 1; /* of filters */
    t.wide = min(((t.filters - 1) / chunks / two + 1) * two, t.filters);
    t.chunks = (t.filters - 1) / t.wide + 1;
    const ptrdiff_t pieces = t.p.strips * t.p.blocks, enough = min(RESULTS / t.size, t.p.units * t.p.lanes * s->oh / LEAST_LANES);
    t.results = min(pieces, max(min(PARTS / t.chunks, enough), t.chunks > 1 ? 1 : 2));
    const ptrdiff_t lanes = t.p.height * t.p.strip * t.p.lanes * ((pieces - 1) / t.results + 1);
    const ptrdiff_t own = lanes > t.most ? threads * t.size : 0, floats = t.results * t.size + LANES;
    t.spread = calloc((size_t)(channels + 1), sizeof *t.spread);
    t.own = malloc(sizeof *t.own * (size_t)own + sizeof *t.result * (size_t)floats);
    const ptrdiff_t part = t.p.points * rows * t.wide, gradient = t.p.points * t.p.tiles * TILE * t.wide;
    float *memory = reserve(s, &t.p, 0, t.few ? part * LANES : part + gradient, 0, threads, rings);
    t.rings = rings;
    const int status = t.spread && t.own && memory ? 0 : NO_MEMORY;
    if (!status) {
        const struct step steps[] = {
            {t.results * t.chunks, NAME(weight_part)},
            {channels, NAME(gradient_part)},
            {1, NAME(gather)},
            {channels, NAME(correct_part)},
        };
        t.result = (float *)(t.own + own);
        in_steps(threads, 4, steps, &t);
    }
    free(memory);
    free(t.own);
    free(t.spread);
    return status;
}
