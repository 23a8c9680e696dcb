/* Rows of an image, lowered for products, for one instruction set; kernels.h includes this. */

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
        if (run == 1 && stride == 2) /* as a constant: compilers vectorise that */
            for (ptrdiff_t v = 0; v < n; v++)
                d[v] = from[v * 2];
        for (ptrdiff_t v = 0; v < n && run == 1 && stride != 2; v++)
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
