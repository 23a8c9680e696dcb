/* Convolution, for one instruction set; kernels.h includes this. */

/* to[f * stride + lane] = sum over k and r of w[k][r][f] * v[k][r][lane], for `filters` filters and a tile of `vectors` vectors, which is
   `offset` floats on in each v[k]. If `more`, that is added to what is there; bias[f] is added unless `bias` is NULL.

   BLOCK * VECTORS sums in registers, for each row VECTORS loads and BLOCK broadcasts: 100-110 GFLOP/s from the second-level cache. */
TARGET static inline __attribute__((always_inline)) void
NAME(sums)(float *restrict to, ptrdiff_t stride, int more, const float *bias, const float *restrict w, const float *const *v,
           ptrdiff_t offset, ptrdiff_t taps, ptrdiff_t rows, const int filters, const int vectors)
{
    VEC sum[BLOCK][VECTORS];
    UNROLLED
    for (int f = 0; f < filters; f++)
        UNROLLED
        for (int j = 0; j < vectors; j++)
            sum[f][j] = (VEC){0};
    for (ptrdiff_t k = 0; k < taps; k++) {
        const float *at = v[k] + offset;
        for (ptrdiff_t r = 0; r < rows; r++, at += TILE, w += BLOCK) {
            VEC a[VECTORS];
            UNROLLED
            for (int j = 0; j < vectors; j++)
                a[j] = *(const VEC *)(at + j * LANES);
            UNROLLED
            for (int f = 0; f < filters; f++)
                UNROLLED
                for (int j = 0; j < vectors; j++)
                    sum[f][j] += w[f] * a[j];
        }
    }
    if (more)
        UNROLLED
        for (int f = 0; f < filters; f++)
            UNROLLED
            for (int j = 0; j < vectors; j++)
                sum[f][j] += *(const LOOSE *)(to + f * stride + j * LANES);
    if (bias)
        UNROLLED
        for (int f = 0; f < filters; f++)
            UNROLLED
            for (int j = 0; j < vectors; j++)
                sum[f][j] += bias[f];
    UNROLLED
    for (int f = 0; f < filters; f++)
        UNROLLED
        for (int j = 0; j < vectors; j++)
            *(LOOSE *)(to + f * stride + j * LANES) = sum[f][j];
}

/* How many filters of a block are computed where there are so many. */
static inline ptrdiff_t NAME(computed)(ptrdiff_t filters)
{
    return filters > 3 * BLOCK / 4 ? BLOCK : filters > BLOCK / 2 ? 3 * BLOCK / 4 : filters > 1 ? BLOCK / 2 : 1;
}

/* The same for that many, and for the first `lanes` lanes, or a few more, at most a tile. */
TARGET static void
NAME(products)(float *to, ptrdiff_t stride, int more, const float *bias, const float *w, const float *const *v, ptrdiff_t offset,
               ptrdiff_t taps, ptrdiff_t rows, ptrdiff_t filters, ptrdiff_t lanes)
{
#define SUMS(filters, vectors) NAME(sums)(to, stride, more, bias, w, v, offset, taps, rows, filters, vectors)
#define SUMS_OF(filters) lanes > LANES ? SUMS(filters, VECTORS) : SUMS(filters, 1)
    switch (NAME(computed)(filters)) {
    case BLOCK: SUMS_OF(BLOCK); break;
    case 3 * BLOCK / 4: SUMS_OF(3 * BLOCK / 4); break;
    case BLOCK / 2: SUMS_OF(BLOCK / 2); break;
    default: SUMS_OF(1);
    }
#undef SUMS_OF
#undef SUMS
}

/* Lay a block of filters out as (k, row, f % BLOCK), for each point; for Winograd, point p holds (G w[f, c, k, :])[p]. */
TARGET static struct found
NAME(lay_out)(const struct geometry *s, const struct plan *p, const float *w, float *to, ptrdiff_t block)
{
    const ptrdiff_t blocks = (s->f + BLOCK - 1) / BLOCK, point = blocks * s->kh * p->rows * BLOCK;
    struct found found = {.lightest = magnitude(INFINITY), .even = 1};
    for (ptrdiff_t f = block * BLOCK; f < min((block + 1) * BLOCK, s->f); f++) {
        int most = 0, column[3] = {0};   /* the largest |w|, and those of each column */
        int least = magnitude(INFINITY); /* the smallest of those of each row, but 0 */
        float rows = 0;                  /* and their sum */
        for (ptrdiff_t k = 0; k < s->kh; k++)
            for (ptrdiff_t c = 0; c < s->c; c++) {
                const float *from = w + f * s->wf + c * s->wc + k * s->wk;
                float *d = to + ((block * s->kh + k) * p->rows + c) * BLOCK + f % BLOCK;
                if (p->points == 1) {
                    for (ptrdiff_t l = 0; l < s->kw; l++) {
                        d[l * s->c * BLOCK] = from[l * s->wl];
                        most = larger(most, magnitude(from[l * s->wl]));
                    }
                    continue;
                }
                const float w0 = from[0], w1 = from[s->wl], w2 = from[2 * s->wl];
                const int size0 = magnitude(w0), size1 = magnitude(w1), size2 = magnitude(w2);
                column[0] = larger(column[0], size0);
                column[1] = larger(column[1], size1);
                column[2] = larger(column[2], size2);
                const int row = larger(larger(size0, size1), size2);
                least = row ? smaller(least, row) : least;
                rows += number(row);
                d[0] = G0 * w0;
                d[point] = GA * ((w0 + A2 * w2) + A1 * w1);
                d[2 * point] = GA * ((w0 + A2 * w2) - A1 * w1);
                d[3 * point] = GB * ((w0 + B2 * w2) + B1 * w1);
                d[4 * point] = GB * ((w0 + B2 * w2) - B1 * w1);
                d[5 * point] = w2;
            }
        if (p->points > 1) {
            const float largest = number(most = larger(larger(column[0], column[1]), column[2]));
            for (int l = 0; l < 3; l++)
                found.even &= number(column[l]) * EVEN_COLUMNS >= largest;
            found.even &= number(least) * ALL_ROWS >= largest && (rows - largest) * EVEN_ROWS >= largest * (float)(s->kh * p->rows - 1);
        }
        found.heaviest = larger(found.heaviest, most);
        found.lightest = most ? smaller(found.lightest, most) : found.lightest;
    }
    return found;
}

/* Where the images of a vector are: `lane` is counted over the units of a strip. */
struct NAME(place) {
    ptrdiff_t column, columns; /* of the output, the first one and how many there are */
    ptrdiff_t image, images;
};

static inline struct NAME(place) NAME(find)(const struct geometry *s, const struct plan *p, ptrdiff_t first, ptrdiff_t lane)
{
    const ptrdiff_t column = (first + lane / p->lanes) * p->columns, image = lane % p->lanes;
    return (struct NAME(place)){column, min(s->ow - column, p->columns), image, min(s->n - image, LANES)};
}

/* What the output columns of a unit see, for each lane of a tile: `mask` is 0 where only zeros are seen, and `apart` is not where Winograd's
   sums are not good enough. Returns which of these there are in the tile: ZEROS, APART.

   Where only zeros are seen, the result has to be the bias exactly: a ReLU behind it must not let gradients through because of rounding. */
TARGET static int
NAME(seeing)(const struct geometry *s, const struct plan *p, const struct ring *ring, struct range k, ptrdiff_t first, ptrdiff_t tile,
             ptrdiff_t lanes, INT (*mask)[VECTORS], INT (*apart)[VECTORS])
{
    int found = 0;
    for (int v = 0; v < VECTORS && v * LANES < lanes; v++) {
        const struct NAME(place) at = NAME(find)(s, p, first, tile * TILE + v * LANES);
        VEC sum[SEEN];
        for (int j = 0; j < SEEN; j++) {
            sum[j] = (VEC){0};
            for (ptrdiff_t at = k.begin; at < k.end; at++)
                sum[j] += *(const VEC *)(ring->rows[at] + p->seen + (tile * SEEN + j) * TILE + v * LANES);
        }
        const VEC all = sum[0] + sum[3]; /* of all six columns */
        const INT fit = (all >= LEAST) & (all <= MOST) & (all * all > SINGLE * sum[COLUMNS]);
        INT zeros = (INT){0}, others = (INT){0};
        for (int j = 0; j < COLUMNS; j++) {
            mask[j][v] = sum[j] != 0;
            const ptrdiff_t inside = min(at.column + j - s->left + s->kw, s->w) - max(at.column + j - s->left, 0);
            const int corner = inside * (k.end - k.begin) * s->c < TERMS;
            apart[j][v] = mask[j][v] & (-corner | ~(fit & (all <= sum[j] * RATIO)));
            zeros |= j < at.columns ? ~mask[j][v] : (INT){0};
            others |= j < at.columns ? apart[j][v] : (INT){0};
        }
        found |= (NAME(any)(zeros, at.images) ? ZEROS : 0) | (NAME(any)(others, at.images) ? APART : 0);
    }
    return found;
}

/* The textbook's sums for one output column j of all filters, and the lanes of a vector where `wanted` is not 0; reads the image where it lies.
   `w` is laid out for the textbook. */
TARGET static void
NAME(one_by_one)(const struct geometry *s, const float *x, const float *w, const float *bias, ptrdiff_t i, ptrdiff_t j, struct range k,
                 ptrdiff_t lane, INT wanted, float *to)
{
    enum { BLOCKS = 2 }; /* together */
    const ptrdiff_t count = s->n - lane, y = i * s->sh - s->top, column = j - s->left, block = s->kh * s->kw * s->c * BLOCK;
    const ptrdiff_t first = max(-column, 0), last = min(s->w - column, s->kw), step = s->w * s->n, blocks = (s->f + BLOCK - 1) / BLOCK;
    for (ptrdiff_t b = 0; b < blocks; b += BLOCKS) {
        VEC sum[BLOCKS][BLOCK];
        const float *own = w + b * block, *other = b + 1 < blocks ? own + block : own;
        for (int f = 0; f < BLOCK; f++)
            sum[0][f] = sum[1][f] = (VEC){0};
        for (ptrdiff_t at = k.begin; at < k.end; at++)
            for (ptrdiff_t l = first; l < last; l++) {
                const float *from = x + ((y + at) * s->c * s->w + column + l) * s->n + lane;
                const ptrdiff_t tap = (at * s->kw + l) * s->c * BLOCK;
                for (ptrdiff_t c = 0; c < s->c; c++) {
                    const VEC v = NAME(load)(from + c * step, count);
                    for (int f = 0; f < BLOCK; f++) {
                        sum[0][f] += own[tap + c * BLOCK + f] * v;
                        sum[1][f] += other[tap + c * BLOCK + f] * v;
                    }
                }
            }
        for (ptrdiff_t f = 0; f < min(s->f - b * BLOCK, BLOCKS * BLOCK); f++) {
            float *d = to + (b * BLOCK + f) * s->yf;
            const INT old = (INT)NAME(load)(d, count), new = (INT)(sum[f / BLOCK][f % BLOCK] + (bias ? bias[b * BLOCK + f] : 0));
            NAME(store)(d, (VEC)((new & wanted) | (old & ~wanted)), count);
        }
    }
}

/* Write a vector of images of all filters to the output: the first `columns` columns of A times the points, with the bias added. Unless `mask`
   is NULL, where it is 0, only the bias. `sums` holds a tile of each filter for each point, `point` floats apart. */
TARGET static inline __attribute__((always_inline)) void
NAME(emit)(const struct geometry *s, const float *sums, ptrdiff_t point, const float *bias, float *to, ptrdiff_t images,
           const INT (*mask)[VECTORS], const ptrdiff_t columns)
{
    for (ptrdiff_t f = 0; f < s->f; f++, to += s->yf, sums += TILE) {
        const float add = bias ? bias[f] : 0;
        VEC m[POINTS], v[COLUMNS];
        for (int q = 0; q < POINTS; q++)
            m[q] = *(const LOOSE *)(sums + q * point);
        const VEC even = m[1] + m[2], odd = A1 * (m[1] - m[2]), even2 = m[3] + m[4], odd2 = B1 * (m[3] - m[4]);
        v[0] = (m[0] + add) + (even + even2);
        v[1] = odd + odd2 + add;
        v[2] = A2 * even + B2 * even2 + add;
        v[3] = A2 * odd + B2 * odd2 + (m[5] + add);
        if (mask)
            for (int j = 0; j < COLUMNS; j++) {
                const INT seen = (INT)*(const LOOSE *)mask[j];
                v[j] = (VEC)(((INT)v[j] & seen) | ((INT)((VEC){0} + add) & ~seen));
            }
        for (ptrdiff_t j = 0; j < columns; j++)
            NAME(store)(to + j * s->yj, v[j], images);
    }
}

/* Write `lanes` sums and the bias to columns of n images, `step` floats apart; the first `column` lanes belong to the first of them. */
TARGET static inline void
NAME(scatter)(float *to, const float *sums, ptrdiff_t lanes, float bias, ptrdiff_t column, ptrdiff_t n, ptrdiff_t step)
{
    if (n == 1)
        for (ptrdiff_t lane = 0; lane < lanes; lane++)
            to[lane * step] = sums[lane] + bias;
    for (ptrdiff_t lane = 0; n > 1 && lane < lanes; lane += column, to += column + step - n, column = n) {
        ptrdiff_t at = 0, count = min(column, lanes - lane);
        for (; at + LANES <= count; at += LANES)
            *(LOOSE *)(to + at) = *(const LOOSE *)(sums + lane + at) + bias;
        for (; at < count; at++)
            to[at] = sums[lane + at] + bias;
    }
}

struct NAME(convolution) {
    const struct geometry *s;
    struct plan p;
    struct ring *rings;
    const float *x, *w, *bias;
    float *filters, *out; /* the filters laid out as (point, f / BLOCK, k, row, f % BLOCK) */
    struct found *found;  /* about each block of them */
    int status;           /* NOT_FINITE or UNEVEN if they are; then there is no output */
};

/* Write Winograd's tile t of a strip: of output row i, filters and units that are in `sums`. */
TARGET static void
NAME(finish)(const struct NAME(convolution) *c, const struct ring *ring, struct range k, ptrdiff_t i, ptrdiff_t first, ptrdiff_t t,
             ptrdiff_t lanes, ptrdiff_t point)
{
    const struct geometry *s = c->s;
    INT mask[COLUMNS][VECTORS], apart[COLUMNS][VECTORS];
    const int seeing = NAME(seeing)(s, &c->p, ring, k, first, t, lanes, mask, apart);
    for (ptrdiff_t v = 0; v * LANES < lanes; v++) {
        struct NAME(place) at = NAME(find)(s, &c->p, first, t * TILE + v * LANES);
        float *to = c->out + i * s->yi + at.column * s->yj + at.image;
        const float *sums = ring->more + v * LANES;
        const ptrdiff_t back = !seeing && at.images < LANES && s->n >= LANES && v ? LANES - at.images : 0; /* begin with images of the vector before */
        if (seeing & ZEROS)
            NAME(emit)(s, sums, point, c->bias, to, at.images, (const INT(*)[VECTORS])(mask[0] + v), at.columns);
        else if (at.columns == COLUMNS && at.images == LANES)
            NAME(emit)(s, sums, point, c->bias, to, LANES, NULL, COLUMNS);
        else
            NAME(emit)(s, sums - back, point, c->bias, to - back, at.images + back, NULL, at.columns);
        for (ptrdiff_t j = 0; seeing & APART && j < at.columns; j++)
            if (NAME(any)(apart[j][v], at.images)) {
                if (!*ring->laid_out && s->f % BLOCK)
                    memset(ring->plain, 0, sizeof(float) * (size_t)((s->f / BLOCK + 1) * BLOCK * s->c * s->kh * s->kw));
                if (!*ring->laid_out)
                    for (ptrdiff_t b = 0; b < (s->f + BLOCK - 1) / BLOCK; b++)
                        NAME(lay_out)(s, &(struct plan){.points = 1, .rows = s->c * s->kw}, c->w, ring->plain, b);
                *ring->laid_out = 1;
                NAME(one_by_one)(s, c->x, ring->plain, c->bias, i, at.column + j, k, at.image, apart[j][v], to + j * s->yj);
            }
    }
}

TARGET static void NAME(lay_out_part)(void *context, ptrdiff_t block, int worker)
{
    struct NAME(convolution) *c = context;
    (void)worker;
    c->found[block] = NAME(lay_out)(c->s, &c->p, c->w, c->filters, block);
}

static void NAME(judge_weights)(void *context, ptrdiff_t part, int worker)
{
    struct NAME(convolution) *c = context;
    struct found all = c->found[0];
    (void)part, (void)worker;
    for (ptrdiff_t block = 1; block * BLOCK < c->s->f; block++) {
        all.heaviest = larger(all.heaviest, c->found[block].heaviest);
        all.lightest = smaller(all.lightest, c->found[block].lightest);
        all.even &= c->found[block].even;
    }
    all.even &= !all.heaviest || (all.lightest >= magnitude(LIGHTEST) && all.heaviest <= magnitude(HEAVIEST));
    c->status = all.heaviest >= magnitude(INFINITY) ? NOT_FINITE : c->p.points > 1 && !all.even ? UNEVEN : 0;
}

TARGET static void NAME(convolve_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(convolution) *c = context;
    const struct geometry *s = c->s;
    const struct plan *p = &c->p;
    const struct ring *ring = &c->rings[worker];
    const ptrdiff_t blocks = (s->f + BLOCK - 1) / BLOCK, block = s->kh * p->rows * BLOCK, point = blocks * BLOCK * TILE;
    const ptrdiff_t first = part / p->blocks * p->strip, top = part % p->blocks * p->height;
    const ptrdiff_t width = next_strip(p, ring, first) * p->lanes;
    const ptrdiff_t end = c->status ? top : min(top + p->height, s->oh);
    for (ptrdiff_t i = top; i < end; i++) {
        const struct range k = NAME(ready)(s, p, ring, c->x, i, first, width / p->lanes);
        /* some rows of a tile at a time, for all filters: the whole of a row of the kernel, or of several */
        const ptrdiff_t depth = min(p->rows, DEPTH), together = max(DEPTH / p->rows, 1);
        struct ahead ahead[2] = {{0}, {0}};
        if (i + 1 < end) {
            ahead[0] = seen_by(s, p, c->x, i + 1, first);
            if (s->yj == s->n)
                ahead[1] = written_to(s, p, c->out + (i + 1) * s->yi, s->yf, first);
        }
        share_out(ahead, p->tiles * p->points * ((k.end - k.begin - 1) / together + 1) * ((p->rows - 1) / depth + 1) * blocks);
        for (ptrdiff_t t = 0; t * TILE < width; t++) {
            const ptrdiff_t lanes = min(width - t * TILE, TILE);
            const ptrdiff_t column = first + t * TILE / s->n, image = t * TILE % s->n; /* of the textbook */
            const int direct = p->points == 1 && lanes == TILE && (s->yj == s->n || image + TILE <= s->n);
            float *out = c->out + i * s->yi + column * s->yj + image;
            for (ptrdiff_t q = 0; q < p->points; q++)
                for (ptrdiff_t at = k.begin; at < max(k.end, k.begin + 1); at += together) /* once for no rows: their sums are 0 */
                    for (ptrdiff_t r = 0; r < p->rows; r += depth)
                        for (ptrdiff_t b = 0; b < blocks; b++) {
                            const ptrdiff_t filters = min(s->f - b * BLOCK, BLOCK);
                            const int whole = direct && filters == NAME(computed)(filters);
                            const int last = at + together >= k.end && r + depth >= p->rows;
                            fetch(ahead);
                            NAME(products)(whole ? out + b * BLOCK * s->yf : ring->more + q * point + b * BLOCK * TILE,
                                           whole ? s->yf : TILE, at > k.begin || r > 0, whole && last && c->bias ? c->bias + b * BLOCK : NULL,
                                           c->filters + (q * blocks + b) * block + (at * p->rows + r) * BLOCK, ring->rows + at,
                                           (q * p->tiles + t) * p->chunk + r * TILE, min(k.end - at, together), min(p->rows - r, depth),
                                           filters, lanes);
                        }
            if (p->points > 1)
                NAME(finish)(c, ring, k, i, first, t, lanes, point);
            for (ptrdiff_t f = 0; p->points == 1 && f < s->f; f++) {
                const ptrdiff_t filters = min(s->f - f / BLOCK * BLOCK, BLOCK);
                if (direct && filters == NAME(computed)(filters))
                    continue;
                NAME(scatter)(out + f * s->yf, ring->more + f * TILE, lanes, c->bias ? c->bias[f] : 0, s->yj == s->n ? lanes : s->n - image, s->n, s->yj);
            }
        }
    }
}

/* out[i, f, j, n] = bias[f] + sum over c, k, l of w[f, c, k, l] * x[i * stride + k - top, c, j * stride + l - left, n], 0 outside x.

   The output's columns are cut into strips. Of a strip, the lowered rows that an output row sees, at most KH, are kept in a ring that fits the
   second-level cache; the next output row needs only its new ones. Textbook (any kernel and stride): 50-75 GFLOP/s for one input channel,
   85-118 for more. Winograd (F(4, 3) along the width: four columns of a 3-column kernel take 6 products instead of 12): 120-230 GFLOP/s
   of the textbook's. */
TARGET static int
NAME(convolve)(const struct geometry *s, const float *x, const float *w, const float *bias, float *out, int points, ptrdiff_t threads)
{
    struct NAME(convolution) c = {.s = s, .p = make_plan(s, LANES, TILE, points, SEEN), .x = x, .w = w, .bias = bias, .out = out};
    struct ring rings[MOST_WORKERS + 1];
    const ptrdiff_t blocks = (s->f + BLOCK - 1) / BLOCK, block = s->kh * c.p.rows * BLOCK, found = sizeof(struct found) / sizeof(float);
    threads = useful_threads(s, threads);
    cut(s, &c.p, threads > 1 ? min((SHARES * threads - 1) / c.p.strips + 1, s->oh / (3 * s->kh - 2) + 1) : 1);
    c.filters = reserve(s, &c.p, blocks * (c.p.points * block + found), c.p.points * blocks * BLOCK * TILE,
                        c.p.points > 1 ? blocks * block * s->kw : 0, threads, rings);
    if (!c.filters)
        return NO_MEMORY;
    c.found = (struct found *)(c.filters + blocks * c.p.points * block);
    c.rings = rings;
    const struct step steps[] = {{blocks, NAME(lay_out_part)}, {1, NAME(judge_weights)}, {c.p.strips * c.p.blocks, NAME(convolve_part)}};
    in_steps(threads, 3, steps, &c);
    free(c.filters);
    return c.status == UNEVEN ? NAME(convolve)(s, x, w, bias, out, 1, threads) : c.status;
}
