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

/* Copy `count` floats (zeros, if `from` is NULL) to the lanes from `at` on of a row that is cut into tiles, `step` floats apart. */
TARGET static inline void NAME(spread)(float *to, ptrdiff_t step, ptrdiff_t at, const float *from, ptrdiff_t count)
{
    while (count > 0) {
        const ptrdiff_t lane = at % TILE, n = min(count, TILE - lane);
        float *d = to + at / TILE * step + lane;
        for (ptrdiff_t v = 0; v < n; v += LANES) {
            const ptrdiff_t first = NAME(fitted)(v, n);
            NAME(store)(d + first, from ? NAME(load)(from + first, n - first) : (VEC){0}, n - first);
        }
        from = from ? from + n : NULL;
        at += n;
        count -= n;
    }
}

/* The same for runs of `run` floats, fewer than a vector, that begin `stride` floats apart; `count` floats in all. */
TARGET static inline void
NAME(spread_runs)(float *to, ptrdiff_t step, ptrdiff_t at, const float *from, ptrdiff_t count, ptrdiff_t run, ptrdiff_t stride)
{
    for (ptrdiff_t done = 0, within = 0; done < count;) {
        const ptrdiff_t lane = (at + done) % TILE, n = min(count - done, TILE - lane);
        float *d = to + (at + done) / TILE * step + lane;
        if (run == 1)
            for (ptrdiff_t v = 0; v < n; v++)
                d[v] = from[v * stride];
        for (ptrdiff_t v = 0; v < n && run > 1; v++) {
            d[v] = from[within++];
            if (within == run) {
                from += stride;
                within = 0;
            }
        }
        from += run == 1 ? n * stride : 0;
        done += n;
    }
}

/* Write the points of B d, `point` floats apart and rows a tile apart, for all channels of one vector of images; d[l] is at from[l], its next
   channel `step[l]` floats on. size[l] gets the sum of |d[l]|, *squares that of all squares; both
   are 0 without `sums`. */
TARGET static inline __attribute__((always_inline)) void
NAME(transform)(const float *const *from, const ptrdiff_t *step, ptrdiff_t channels, ptrdiff_t count, float *to, ptrdiff_t point, VEC *size,
                VEC *squares, const int sums)
{
    for (int l = 0; l < POINTS; l++)
        size[l] = (VEC){0};
    *squares = (VEC){0};
    for (ptrdiff_t c = 0; c < channels; c++, to += TILE) {
        VEC d[POINTS];
        for (int l = 0; l < POINTS; l++)
            d[l] = NAME(load)(from[l] + c * step[l], count);
        for (int l = 2; l < POINTS; l++) /* that saves a third of the time */
            __builtin_prefetch(from[l] + (c + 1) * step[l]);
        const VEC even = d[4] - B2 * d[2], odd = A1 * (d[3] - B2 * d[1]), even2 = d[4] - A2 * d[2], odd2 = B1 * (d[3] - A2 * d[1]);
        *(LOOSE *)to = (d[4] - (A2 + B2) * d[2]) + A2 * B2 * d[0];
        *(LOOSE *)(to + point) = even + odd;
        *(LOOSE *)(to + 2 * point) = even - odd;
        *(LOOSE *)(to + 3 * point) = even2 + odd2;
        *(LOOSE *)(to + 4 * point) = even2 - odd2;
        *(LOOSE *)(to + 5 * point) = (d[5] - (A2 + B2) * d[3]) + A2 * B2 * d[1];
        if (!sums)
            continue;
        for (int l = 0; l < POINTS; l++)
            size[l] += NAME(absolute)(d[l]);
        *squares += (d[0] * d[0] + d[1] * d[1]) + (d[2] * d[2] + d[3] * d[3]) + (d[4] * d[4] + d[5] * d[5]);
    }
}

/* Lower row y of an image for the output columns of a strip, into tiles (point, tile, row, lane): a tile's rows lie together.

   Textbook: row l * C + c, lane j * N + n holds x[y, c, j * stride + l - left, n]; 0 outside the image.
   Winograd: point p, row c, lane u * lanes + n holds (B d)[p] with d = x[y, c, j - left .. j - left + 5, n] and j = 4u.
   Behind all of them, if the plan has room, (tile, 5, lane) holds the sums of the absolute values that each output column sees, and that of all squares.
   A fifth to a tenth of a convolution's time. */
TARGET static void
NAME(lower)(const struct geometry *s, const struct plan *p, const float *x, const float *zeros, ptrdiff_t y, ptrdiff_t first, ptrdiff_t units,
            float *to)
{
    const ptrdiff_t n = s->n, chunk = p->chunk, point = p->tiles * chunk;
    const float *row = x + y * s->c * s->w * n;
    if (p->points == 1) {
        for (ptrdiff_t l = 0; l < s->kw; l++) {
            ptrdiff_t shift = l - s->left, begin = first, end = first + units;
            while (begin < end && begin * s->sw + shift < 0)
                begin++;
            while (end > begin && (end - 1) * s->sw + shift >= s->w)
                end--;
            for (ptrdiff_t c = 0; c < s->c; c++) {
                float *d = to + (l * s->c + c) * TILE;
                ptrdiff_t run = s->sw == 1 ? end - begin : 1; /* output columns that see neighbours */
                NAME(spread)(d, chunk, 0, NULL, (begin - first) * n);
                if (n < LANES && s->sw > 1)
                    NAME(spread_runs)(d, chunk, (begin - first) * n, row + (c * s->w + begin * s->sw + shift) * n, (end - begin) * n, n, s->sw * n);
                for (ptrdiff_t j = n < LANES && s->sw > 1 ? end : begin; j < end; j += run)
                    NAME(spread)(d, chunk, (j - first) * n, row + (c * s->w + j * s->sw + shift) * n, run * n);
                NAME(spread)(d, chunk, (end - first) * n, NULL, (first + units - end) * n);
            }
        }
        return;
    }
    for (ptrdiff_t u = 0; u < units; u++) {
        const ptrdiff_t column = COLUMNS * (first + u) - s->left;
        for (ptrdiff_t lane = 0; lane < n; lane += LANES) {
            const ptrdiff_t last = NAME(fitted)(lane, n), own = u * p->lanes; /* may begin earlier, but not in the tile before */
            const ptrdiff_t at = (own + last) / TILE == (own + lane) / TILE ? last : lane, tile = (own + at) / TILE, in = (own + at) % TILE;
            const float *from[POINTS];
            ptrdiff_t step[POINTS];
            for (int l = 0; l < POINTS; l++) {
                const int inside = column + l >= 0 && column + l < s->w;
                from[l] = inside ? row + (column + l) * n + at : zeros;
                step[l] = inside ? s->w * n : 0;
            }
            float *d = to + tile * chunk + in, *seen = to + POINTS * point + tile * SEEN * TILE + in;
            VEC size[POINTS], squares;
            if (n - at >= LANES && p->slot == p->seen)
                NAME(transform)(from, step, s->c, LANES, d, point, size, &squares, 0);
            else if (n - at >= LANES)
                NAME(transform)(from, step, s->c, LANES, d, point, size, &squares, 1);
            else
                NAME(transform)(from, step, s->c, n - at, d, point, size, &squares, 1);
            if (p->slot == p->seen)
                continue;
            for (int j = 0; j < COLUMNS; j++)
                *(LOOSE *)(seen + j * TILE) = size[j] + size[j + 1] + size[j + 2];
            *(LOOSE *)(seen + COLUMNS * TILE) = squares;
        }
    }
}

/* See to it that the rows of the image that output row i sees are in the ring, and where; returns the rows of the kernel that see any. */
TARGET static struct range
NAME(ready)(const struct geometry *s, const struct plan *p, const struct ring *ring, const float *x, ptrdiff_t i, ptrdiff_t first,
            ptrdiff_t units)
{
    const ptrdiff_t y = i * s->sh - s->top;
    struct range k = {min(y < 0 ? -y : 0, s->kh), max(min(s->h - y, s->kh), 0)};
    for (ptrdiff_t at = k.begin; at < k.end; at++) {
        const ptrdiff_t number = (y + at) % ring->count;
        float *row = ring->slots + number * p->slot;
        if (ring->holds[number] != y + at)
            NAME(lower)(s, p, x, ring->zeros, y + at, first, units, row);
        ring->holds[number] = y + at;
        ring->rows[at] = row;
    }
    return k;
}

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

struct NAME(layout) {
    const struct geometry *s;
    const struct plan *p;
    const float *w;
    float *to;
    struct found *found; /* for each block */
};

/* Lay a block of filters out as (k, row, f % BLOCK), for each point; for Winograd, point p holds (G w[f, c, k, :])[p]. */
TARGET static void NAME(lay_out_part)(void *context, ptrdiff_t block, int worker)
{
    const struct NAME(layout) *t = context;
    const struct geometry *s = t->s;
    const struct plan *p = t->p;
    const ptrdiff_t blocks = (s->f + BLOCK - 1) / BLOCK, point = blocks * s->kh * p->rows * BLOCK;
    struct found found = {.lightest = magnitude(INFINITY), .even = 1};
    (void)worker;
    for (ptrdiff_t f = block * BLOCK; f < min((block + 1) * BLOCK, s->f); f++) {
        int most = 0, column[3] = {0};   /* the largest |w|, and those of each column */
        int least = magnitude(INFINITY); /* the smallest of those of each row, but 0 */
        float rows = 0;                  /* and their sum */
        for (ptrdiff_t k = 0; k < s->kh; k++)
            for (ptrdiff_t c = 0; c < s->c; c++) {
                const float *from = t->w + f * s->wf + c * s->wc + k * s->wk;
                float *d = t->to + ((block * s->kh + k) * p->rows + c) * BLOCK + f % BLOCK;
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
    t->found[block] = found;
}

/* Lay the filters out as (point, f / BLOCK, k, row, f % BLOCK). Returns 0, or NOT_FINITE or UNEVEN if the weights are. */
TARGET static int
NAME(lay_out)(const struct geometry *s, const struct plan *p, const float *w, float *to, struct found *found, ptrdiff_t threads)
{
    const ptrdiff_t blocks = (s->f + BLOCK - 1) / BLOCK;
    struct NAME(layout) t = {s, p, w, to, found};
    in_parallel(s->f * s->c * s->kh * s->kw < SMALL_PART ? 1 : threads, blocks, NAME(lay_out_part), &t);
    struct found all = found[0];
    for (ptrdiff_t block = 1; block < blocks; block++) {
        all.heaviest = larger(all.heaviest, found[block].heaviest);
        all.lightest = smaller(all.lightest, found[block].lightest);
        all.even &= found[block].even;
    }
    if (all.heaviest >= magnitude(INFINITY))
        return NOT_FINITE;
    all.even &= !all.heaviest || (all.lightest >= magnitude(LIGHTEST) && all.heaviest <= magnitude(HEAVIEST));
    return p->points == 1 || all.even ? 0 : UNEVEN;
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
            zeros |= ~mask[j][v];
            others |= apart[j][v];
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
    enum { TOGETHER = 2 }; /* blocks */
    const ptrdiff_t count = s->n - lane, y = i * s->sh - s->top, column = j - s->left, block = s->kh * s->kw * s->c * BLOCK;
    const ptrdiff_t first = max(-column, 0), last = min(s->w - column, s->kw), step = s->w * s->n, blocks = (s->f + BLOCK - 1) / BLOCK;
    for (ptrdiff_t b = 0; b < blocks; b += TOGETHER) {
        VEC sum[TOGETHER][BLOCK];
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
        for (ptrdiff_t f = 0; f < min(s->f - b * BLOCK, TOGETHER * BLOCK); f++) {
            float *d = to + (b * BLOCK + f) * s->yf;
            const INT old = (INT)NAME(load)(d, count), new = (INT)(sum[f / BLOCK][f % BLOCK] + (bias ? bias[b * BLOCK + f] : 0));
            NAME(store)(d, (VEC)((new & wanted) | (old & ~wanted)), count);
        }
    }
}

/* Write a vector of images of all filters to the output: as many as there are of the columns A sums, with the bias added. Unless `mask` is
   NULL, where it is 0, only the bias. `sums` holds a tile of each filter for each point, `point` floats apart. */
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

/* Write `lanes` sums and the bias to columns of n images, `step` floats apart; so many of them belong to the first column. */
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
    const float *x, *w, *bias, *filters; /* the filters laid out */
    float *out;
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
                if (!*ring->laid_out)
                    NAME(lay_out)(s, &(struct plan){.points = 1, .rows = s->c * s->kw}, c->w, ring->plain, ring->found, 1);
                *ring->laid_out = 1;
                NAME(one_by_one)(s, c->x, ring->plain, c->bias, i, at.column + j, k, at.image, apart[j][v], to + j * s->yj);
            }
    }
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
    const ptrdiff_t end = min(top + p->height, s->oh);
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
                for (ptrdiff_t at = k.begin; at < max(k.end, k.begin + 1); at += together)
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
   second-level cache; the next output row needs only its new ones. Textbook (any kernel and stride): 60-75 GFLOP/s for one input channel,
   85-100 for more. Winograd (F(4, 3) along the width: four columns of a 3-column kernel take 6 products instead of 12): 120-230 GFLOP/s
   of the textbook's. */
TARGET static int
NAME(convolve)(const struct geometry *s, const float *x, const float *w, const float *bias, float *out, int points, ptrdiff_t threads)
{
    struct NAME(convolution) c = {s, make_plan(s, LANES, TILE, points, SEEN), NULL, x, w, bias, NULL, out};
    struct ring rings[MOST_WORKERS + 1];
    const ptrdiff_t blocks = (s->f + BLOCK - 1) / BLOCK, block = s->kh * c.p.rows * BLOCK;
    threads = useful_threads(s, threads);
    cut(s, &c.p, c.p.strips % threads ? threads : 1);
    float *filters = reserve(s, &c.p, c.p.points * blocks * block, c.p.points * blocks * BLOCK * TILE, c.p.points > 1 ? blocks * block * s->kw : 0, threads, rings);
    if (!filters)
        return NO_MEMORY;
    c.rings = rings;
    c.filters = filters;
    const int status = NAME(lay_out)(s, &c.p, w, filters, rings->found, threads);
    if (!status)
        in_parallel(threads, c.p.strips * c.p.blocks, NAME(convolve_part), &c);
    free(filters);
    return status == UNEVEN ? NAME(convolve)(s, x, w, bias, out, 1, threads) : status;
}

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
    int few;         /* whether `part` holds vectors of sums, to be summed across at the end */
    ptrdiff_t most;  /* lanes that are summed in float32 */
    double *total;   /* for each weight or point, and behind it those of each thread if parts have more lanes */
    ptrdiff_t filters, size, part, turn;
    float *out;
    double column[3], all;           /* sums of absolute values: of gradients, by column of the kernel, and of the largest points */
    ptrdiff_t exponents[256], turns; /* of the largest points: how many there are of each */
};

/* Add to `to`, or write there, what was summed up in `part`. */
TARGET static void NAME(fold)(double *to, const float *part, ptrdiff_t size, int few, int add)
{
    for (ptrdiff_t at = 0; at < size; at++)
        to[at] = (add ? to[at] : 0) + (few ? NAME(across)(((const VEC *)part)[at]) : part[at]);
}

TARGET static void NAME(weight_part)(void *context, ptrdiff_t number, int worker)
{
    struct NAME(weights) *c = context;
    const struct geometry *s = c->s;
    const struct plan *p = &c->p;
    const struct ring *ring = &c->rings[worker];
    const ptrdiff_t filters = c->filters, chunk = p->chunk, point = s->kh * p->rows * filters, gradient = p->tiles * TILE * filters;
    const ptrdiff_t first = number / p->blocks * p->strip, begin = number % p->blocks * p->height, end = min(begin + p->height, s->oh);
    const ptrdiff_t units = next_strip(p, ring, first), width = units * p->lanes;
    const int few = c->few;
    float *part = ring->more;
    double *own = c->total + (worker + 1) * c->size;
    int folds = 0;
    for (ptrdiff_t i = begin, unfolded = 0; i < end; i++, unfolded += width) {
        if (unfolded >= c->most)
            NAME(fold)(own, part, c->size, few, folds++);
        if (unfolded >= c->most || i == begin) {
            memset(part, 0, sizeof *part * (size_t)c->part);
            unfolded = 0;
        }
        const struct range k = NAME(ready)(s, p, ring, c->x, i, first, units);
        const float *row = c->g + i * s->f * s->ow * s->n;
        if (k.begin < k.end && !few)
            NAME(lower_gradient)(s, p, row, first, units, filters, part + c->part);
        struct ahead ahead[2] = {{0}, {0}};
        if (i + 1 < end && !few) {
            ahead[0] = seen_by(s, p, c->x, i + 1, first);
            ahead[1] = written_to(s, p, row + s->f * s->ow * s->n, s->ow * s->n, first);
        }
        share_out(ahead, p->points * ((width - 1) / TOGETHER + 1) * (k.end - k.begin) * ((p->rows - 1) / ROWS + 1) * ((filters - 1) / (2 * LANES) + 1));
        for (ptrdiff_t q = 0; q < p->points; q++)
            for (ptrdiff_t lane = 0; lane < width; lane += few ? FOLDED : TOGETHER) {
                const ptrdiff_t offset = q * p->tiles * chunk + lane / TILE * chunk;
                if (few)
                    NAME(dots)((VEC *)part + k.begin * p->rows * filters, filters, ring->rows + k.begin, offset, chunk,
                               row + first * s->n + lane, s->ow * s->n, min(width - lane, FOLDED), k.end - k.begin, p->rows);
                for (ptrdiff_t at = k.begin; at < (few ? k.begin : k.end); at++)
                    NAME(outers)(part + q * point + at * p->rows * filters, filters, ring->rows[at] + offset, chunk,
                                 part + c->part + q * gradient, p->tiles * TILE, lane, min(width - lane, TOGETHER), p->rows, ahead);
            }
    }
    if (folds)
        NAME(fold)(own, part, c->size, few, 1);
    wait_for_turn(&c->turn, number);
    if (folds)
        for (ptrdiff_t at = 0; at < c->size; at++)
            c->total[at] = (number ? c->total[at] : 0) + own[at];
    else
        NAME(fold)(c->total, part, c->size, few, number > 0);
    end_turn(&c->turn);
}

/* Write the gradients of some channels: of points, G' of their totals, and in place of the first of these the largest. */
TARGET static void NAME(gradient_part)(void *context, ptrdiff_t part, int worker)
{
    struct NAME(weights) *t = context;
    const struct geometry *s = t->s;
    const ptrdiff_t point = t->size / t->p.points, step = s->c * s->kh * s->kw;
    ptrdiff_t exponents[256] = {0};
    double column[3][LANES] = {{0}}, all[LANES] = {0}; /* as in the structure, but apart for vectors */
    float d[3][LANES], size[LANES];
    (void)worker;
    for (ptrdiff_t c = part * CHANNELS; c < min((part + 1) * CHANNELS, s->c); c++)
        for (ptrdiff_t k = 0; k < s->kh; k++)
            for (ptrdiff_t first = 0; first < s->f; first += LANES) { /* the totals of all filters lie side by side */
                const ptrdiff_t count = min(s->f - first, LANES);
                double *u = t->total + (k * t->p.rows + c) * t->filters + first;
                float *to = t->out + ((first * s->c + c) * s->kh + k) * s->kw;
                if (t->p.points == 1) {
                    for (ptrdiff_t l = 0; l < s->kw; l++)
                        for (ptrdiff_t f = 0; f < count; f++)
                            to[f * step + l] = (float)u[l * s->c * t->filters + f];
                    continue;
                }
                for (int f = 0; f < LANES; f++) {
                    const double v0 = u[f], v1 = u[point + f], v2 = u[2 * point + f], v3 = u[3 * point + f], v4 = u[4 * point + f];
                    const double v5 = u[5 * point + f], most = fmost(fmost(fmost(v0, v1), fmost(v2, v3)), fmost(v4, v5));
                    const double even = GA * (v1 + v2), odd = GA * A1 * (v1 - v2), even2 = GB * (v3 + v4), odd2 = GB * B1 * (v3 - v4);
                    d[0][f] = (float)(G0 * v0 + (even + even2));
                    d[1][f] = (float)(odd + odd2);
                    d[2][f] = (float)(A2 * even + B2 * even2 + v5);
                    size[f] = (float)(u[f] = most);
                    all[f] += most;
                    for (int l = 0; l < 3; l++)
                        column[l][f] += fabsf(d[l][f]);
                }
                for (ptrdiff_t f = 0; f < count; f++) {
                    for (int l = 0; l < 3; l++)
                        to[f * step + l] = d[l][f];
                    exponents[magnitude(size[f]) >> 23]++;
                }
            }
    wait_for_turn(&t->turns, part);
    for (int f = 0; f < LANES; f++) {
        for (int l = 0; l < 3; l++)
            t->column[l] += column[l][f];
        t->all += all[f];
    }
    for (int e = 0; e < 256; e++)
        t->exponents[e] += exponents[e];
    end_turn(&t->turns);
}

/* Compute the gradients of weights of some channels again that are not right as sums of points, or not finite. */
TARGET static void NAME(correct_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(weights) *t = context;
    const struct geometry *s = t->s;
    const float usual = number(smaller(low_quantile(t->exponents), magnitude(HIGH))), cancelled = (float)min(2 * s->n * s->oh * s->ow, CANCELLED);
    int weak = 0; /* a bit for each such column of the kernel */
    (void)worker;
    for (int l = 0; l < 3 && t->p.points > 1; l++)
        weak |= (t->column[l] * WEAK < t->all) << l;
    for (ptrdiff_t f = 0; f < s->f; f++)
        for (ptrdiff_t c = part * CHANNELS; c < min((part + 1) * CHANNELS, s->c); c++)
            for (ptrdiff_t k = 0; k < s->kh; k++) {
                float *d = t->out + ((f * s->c + c) * s->kh + k) * s->kw, least = 0;
                if (t->p.points > 1) {
                    const float size = (float)t->total[(k * t->p.rows + c) * t->filters + f];
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
   a tile are added to `part`, and that, every FOLDED lanes or so, in float64 to the total: errors do not grow with the images. The work is
   cut into the same parts for any number of threads, and what they give is added in their order. Textbook: 65-75 GFLOP/s for one input
   channel, 50-100 for more. Winograd: 115-190.

   A weight whose sum is not finite, or much smaller than unusually large ones that its neighbours share, is computed again by itself: it may
   not see what is large, and padding takes no part. So is a column of the kernel whose gradients are all much smaller. */
TARGET static int NAME(weight_gradient)(const struct geometry *s, const float *x, const float *g, float *out, ptrdiff_t threads)
{
    struct NAME(weights) t = {.s = s, .p = make_plan(s, LANES, TILE, POINTS, 0), .x = x, .g = g, .out = out};
    const ptrdiff_t whole = (s->f + LANES - 1) / LANES * LANES, rows = s->kh * t.p.rows;
    struct ring rings[MOST_WORKERS + 1];
    threads = useful_threads(s, threads);
    cut(s, &t.p, min((PARTS - 1) / t.p.strips + 1, s->oh / 4));
    t.few = t.p.points == 1 && rows * s->f <= FEW && (rows < 16 || s->f < whole);
    t.most = t.few ? FOLDED * LANES : 4 * FOLDED;
    t.filters = t.few ? s->f : whole;
    t.size = t.p.points * rows * t.filters;
    t.part = t.few ? t.size * LANES : t.size;
    const int folds = t.p.height * t.p.strip * t.p.lanes > t.most;
    t.total = malloc(sizeof *t.total * (size_t)(t.size * (folds ? 1 + threads : 1)));
    float *memory = t.total ? reserve(s, &t.p, 0, t.part + t.p.points * t.p.tiles * TILE * t.filters, 0, threads, rings) : NULL;
    if (!memory) {
        free(t.total);
        return NO_MEMORY;
    }
    t.rings = rings;
    in_parallel(threads, t.p.strips * t.p.blocks, NAME(weight_part), &t);
    in_parallel(t.size < SMALL_PART ? 1 : threads, (s->c - 1) / CHANNELS + 1, NAME(gradient_part), &t);
    in_parallel(t.size < SMALL_PART ? 1 : threads, (s->c - 1) / CHANNELS + 1, NAME(correct_part), &t);
    free(memory);
    free(t.total);
    return 0;
}

#include "pooling.h"

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
