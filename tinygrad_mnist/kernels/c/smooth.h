/* Activation functions of float32 numbers, and products with their derivatives, for one instruction set; kernels.h includes this at its end.

   They are those of smooth.py. All is computed in double precision, where the squares of float32 numbers are exact and their products with any
   exponential that matters neither overflow nor underflow; before it is rounded, a result is right to nine digits. */

#define LONGS NAME(longs)

typedef unsigned long long LONGS __attribute__((vector_size(4 * LANES)));

/* `yes` where the mask is set, else `no`. */
TARGET static inline WIDE NAME(either)(LONGS mask, WIDE yes, WIDE no)
{
    return (WIDE)((mask & (LONGS)yes) | (~mask & (LONGS)no));
}

TARGET static inline WIDE NAME(size)(WIDE v) { return (WIDE)((LONGS)v & ~(1ull << 63)); }

/* The polynomial with these coefficients, the highest first. */
TARGET static inline __attribute__((always_inline)) WIDE NAME(polynomial)(const double *coefficients, int count, WIDE v)
{
    WIDE sum = v * coefficients[0] + coefficients[1];
    UNROLLED
    for (int i = 2; i < count; i++)
        sum = sum * v + coefficients[i];
    return sum;
}

/* exp(v) for v <= 0, and 0 below -FAR: 2**k times the exponential of a rest of at most log(2) / 2. */
TARGET static inline __attribute__((always_inline)) WIDE NAME(exponential)(WIDE v)
{
    static const double series[] = {1 / 40320., 1 / 5040., 1 / 720., 1 / 120., 1 / 24., 1 / 6., 1 / 2., 1, 1};
    const WIDE shifted = v * 0x1.71547652b82fep0 + 0x1.8p52; /* rounded to k, which is in the lowest bits */
    const WIDE rest = v - (shifted - 0x1.8p52) * 0x1.62e42fefa39efp-1;
    const WIDE power = (WIDE)(((LONGS)shifted << 52) + (1023ull << 52));
    return (WIDE)((LONGS)(NAME(polynomial)(series, 9, rest) * power) & ~(LONGS)(v < -FAR));
}

/* exp(z**2) * erfc(z) for z >= 0: the series of smooth.py. */
TARGET static inline __attribute__((always_inline)) WIDE NAME(tail)(WIDE z)
{
    static const double series[] = {
        6.5519701868292946e-06, 2.260987852402578e-05,   -8.832780724181985e-05, -0.00016928352617058947, 0.0010091414855283153, -0.00041079034720134435,
        -0.008941790037543085,  0.03984410023021236,     -0.10348916310367173,   0.19674265853470232,     -0.2944648150622931,   0.3580023041045045,
    };
    const WIDE small = 3 / (z + 3);
    return NAME(polynomial)(series, 12, 1 - 2 * small) * small;
}

/* log(1 + v) for 0 <= v <= 1, which is 2 artanh(v / (2 + v)). */
TARGET static inline __attribute__((always_inline)) WIDE NAME(logarithm)(WIDE v)
{
    static const double series[] = {2 / 19., 2 / 17., 2 / 15., 2 / 13., 2 / 11., 2 / 9., 2 / 7., 2 / 5., 2 / 3., 2};
    const WIDE part = v / (2 + v);
    return NAME(polynomial)(series, 10, part * part) * part;
}

/* x times the step (for softplus: the sum of the step), or g times the derivative of that (`sloped`). Where exp(`exponent`) is 0, that is exactly 0, but not at minus infinity. */
TARGET static inline __attribute__((always_inline)) WIDE NAME(activated)(enum activation kind, int sloped, WIDE x, WIDE g)
{
    const WIDE one = (WIDE){0} + 1;
    WIDE exponent = x, slope = one, factor;
    if (kind == GELU) {
        const WIDE size = NAME(size)(x), tail = NAME(tail)(size * 0x1.6a09e667f3bcdp-1) / 2;
        const WIDE product = (sloped ? tail - size * 0.3989422804014327 : tail) * NAME(exponential)(size * size / -2);
        exponent = NAME(either)((LONGS)(x < 0), size * size / -2, x);
        factor = NAME(either)((LONGS)(x < 0), product, 1 - product);
    } else {
        if (kind == GELU_TANH) { /* farther out than 100 the step is 0 or 1 */
            const WIDE near = NAME(either)((LONGS)(x > 100), 100 * one, NAME(either)((LONGS)(x < -100), -100 * one, x));
            exponent = near * (1 + near * near * 0.044715) * 1.5957691216057308;
            slope = (1 + near * near * (3 * 0.044715)) * 1.5957691216057308;
        }
        const LONGS below = (LONGS)(exponent < 0);
        const WIDE small = NAME(exponential)(-NAME(size)(exponent));
        if (kind == SOFTPLUS && !sloped)
            return NAME(logarithm)(small) + NAME(either)(below, 0 * one, x);
        if (kind == MISH) {
            const WIDE share = 1 / NAME(either)(below, small * (small + 2) + 2, 2 * small * (1 + small) + 1);
            factor = NAME(either)(below, small + 2, 2 * small + 1);
            if (sloped)
                factor += x * (4 * (small + 1) * NAME(either)(below, one, small * small) * share);
            factor *= share;
        } else {
            const WIDE share = 1 / (1 + small);
            factor = kind != SOFTPLUS && sloped ? (1 + x * (slope * NAME(either)(below, one, small) * share)) * share : share;
        }
        factor *= NAME(either)(below, small, one);
    }
    const WIDE out = (sloped ? g : x) * factor;
    return sloped ? (WIDE)((LONGS)out & ~((LONGS)(exponent < -FAR) & (kind == SOFTPLUS ? ~(LONGS){0} : (LONGS)(x > -INFINITY)))) : out;
}

struct NAME(activations) {
    enum activation kind;
    ptrdiff_t count;
    const float *x, *g;
    float *out;
};

TARGET static inline __attribute__((always_inline)) void NAME(activate)(enum activation kind, int sloped, const struct NAME(activations) *t, struct range r)
{
    for (ptrdiff_t at = r.begin; at < r.end; at += WIDE_LANES) {
        const size_t bytes = sizeof(float) * (size_t)min(r.end - at, WIDE_LANES);
        float x[WIDE_LANES] = {0}, g[WIDE_LANES] = {0};
        if (at + WIDE_LANES <= r.end) {
            const WIDE v = NAME(widened)(t->x + at);
            *(LOOSE_HALF *)(t->out + at) = __builtin_convertvector(NAME(activated)(kind, sloped, v, sloped ? NAME(widened)(t->g + at) : v), HALF);
            continue;
        }
        memcpy(x, t->x + at, bytes);
        memcpy(g, sloped ? t->g + at : x, bytes);
        *(LOOSE_HALF *)x = __builtin_convertvector(NAME(activated)(kind, sloped, NAME(widened)(x), NAME(widened)(g)), HALF);
        memcpy(t->out + at, x, bytes);
    }
}

TARGET static void NAME(activation_part)(void *context, ptrdiff_t part, int worker)
{
    const struct NAME(activations) *t = context;
    const struct range r = {part * (SMALL_PART / 4), min((part + 1) * (SMALL_PART / 4), t->count)};
    (void)worker;
#define ACTIVATION(kind) \
    case kind: \
        if (t->g) \
            NAME(activate)(kind, 1, t, r); \
        else \
            NAME(activate)(kind, 0, t, r); \
        break
    switch (t->kind) {
        ACTIVATION(GELU);
        ACTIVATION(GELU_TANH);
        ACTIVATION(SILU);
        ACTIVATION(MISH);
        ACTIVATION(SOFTPLUS);
    }
#undef ACTIVATION
}

/* The activation of x, or g times its derivative if there is g. */
TARGET static void NAME(activation)(enum activation kind, ptrdiff_t count, const float *x, const float *g, float *out, ptrdiff_t threads)
{
    struct NAME(activations) t = {kind, count, x, g, out};
    in_parallel(count < SMALL_PART ? 1 : threads, (count - 1) / (SMALL_PART / 4) + 1, NAME(activation_part), &t);
}

#undef LONGS
