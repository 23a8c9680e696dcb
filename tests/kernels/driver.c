/* Calls the kernels of native.c for the tests, also where they are compiled for another processor and run by an emulator.

   Reads calls from the standard input and writes results to the standard output, until there are no more. All integers have 64 bits.

   call     number of the function in `call` below, threads, sizes (those of `struct geometry`, or fewer), and for each array how many floats
            there are (0: NULL is passed) and which one the pointer points to; then the floats of all arrays but the last one
   result   what the function returned, or WRITTEN_BEYOND; then the floats of the last array */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int convolve(int, ptrdiff_t, const void *, const float *, const float *, const float *, float *);
int weight_gradient(int, ptrdiff_t, const void *, const float *, const float *, float *);
void max_pool(int, ptrdiff_t, const void *, const float *, float *);
void max_pool_gradient(int, ptrdiff_t, const void *, const float *, const float *, const float *, float *);
int average_pool(int, ptrdiff_t, const void *, const float *, float *);
int average_pool_gradient(int, ptrdiff_t, const void *, const float *, float *);
void relu_gradient(int, ptrdiff_t, ptrdiff_t, const float *, const float *, float *);
void channel_sums(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, float *);
int depthwise(int, ptrdiff_t, const void *, const float *, const float *, const float *, float *);
int depthwise_gradient(int, ptrdiff_t, const void *, const float *, const float *, float *);
int depthwise_weights(int, ptrdiff_t, const void *, const float *, const float *, float *);
void activation(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, const float *, float *);
extern double worth_a_thread;

enum { SIZES = 22, ARRAYS = 4, GUARD = 64, WRITTEN_BEYOND = -1 };

struct call {
    int64_t function, threads, sizes[SIZES], counts[ARRAYS], offsets[ARRAYS];
};

static const unsigned char PATTERN = 0xa5;

/* The functions are numbered as in `SIGNATURES` of compiled.py. */
static int call(const struct call *c, float *const *a)
{
    ptrdiff_t s[SIZES];
    for (int i = 0; i < SIZES; i++)
        s[i] = (ptrdiff_t)c->sizes[i];
    switch (c->function) {
    case 0: return convolve(0, c->threads, s, a[0], a[1], a[2], a[3]);
    case 1: return weight_gradient(0, c->threads, s, a[0], a[1], a[3]);
    case 2: max_pool(0, c->threads, s, a[0], a[3]); return 0;
    case 3: max_pool_gradient(0, c->threads, s, a[0], a[1], a[2], a[3]); return 0;
    case 4: return average_pool(0, c->threads, s, a[0], a[3]);
    case 5: return average_pool_gradient(0, c->threads, s, a[0], a[3]);
    case 6: relu_gradient(0, c->threads, s[0], a[0], a[1], a[3]); return 0;
    case 7: channel_sums(0, c->threads, s[0], s[1], s[2], a[0], a[3]); return 0;
    case 8: return depthwise(0, c->threads, s, a[0], a[1], a[2], a[3]);
    case 9: return depthwise_gradient(0, c->threads, s, a[0], a[1], a[3]);
    case 10: return depthwise_weights(0, c->threads, s, a[0], a[1], a[3]);
    case 11: activation(0, c->threads, s[0], s[1], a[0], c->counts[1] ? a[1] : NULL, a[3]); return 0;
    }
    exit(3);
}

/* Whether the bytes before and after an array are as they were. */
static int guarded(const unsigned char *memory, size_t bytes)
{
    for (size_t i = 0; i < GUARD; i++)
        if (memory[i] != PATTERN || memory[GUARD + bytes + i] != PATTERN)
            return 0;
    return 1;
}

int main(void)
{
    worth_a_thread = 1; /* small cases use threads, too */
    for (struct call c; fread(&c, sizeof c, 1, stdin) == 1;) {
        unsigned char *memory[ARRAYS];
        float *array[ARRAYS];
        for (int i = 0; i < ARRAYS; i++) {
            const size_t count = (size_t)c.counts[i], bytes = sizeof(float) * count;
            memory[i] = malloc(bytes + 2 * GUARD);
            if (!memory[i])
                return 1;
            memset(memory[i], PATTERN, bytes + 2 * GUARD);
            if (i + 1 < ARRAYS && fread(memory[i] + GUARD, sizeof(float), count, stdin) != count)
                return 2;
            array[i] = count ? (float *)(memory[i] + GUARD) + c.offsets[i] : NULL;
        }
        int64_t status = call(&c, array);
        for (int i = 0; i < ARRAYS; i++)
            if (!guarded(memory[i], sizeof(float) * (size_t)c.counts[i]))
                status = WRITTEN_BEYOND;
        fwrite(&status, sizeof status, 1, stdout);
        fwrite(memory[ARRAYS - 1] + GUARD, sizeof(float), (size_t)c.counts[ARRAYS - 1], stdout);
        fflush(stdout);
        for (int i = 0; i < ARRAYS; i++)
            free(memory[i]);
    }
    return 0;
}
