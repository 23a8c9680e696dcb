/* A pool of threads that deals out the parts of one call, step by step.

   Workers sleep between calls (nothing spins), start when first needed, and block all signals, which are left to the threads of the program.
   To wake one takes 20 to 80 microseconds, so within a call they wait for each other without sleeping. A caller works, too: a worker that
   wakes late costs no more than its share. A second caller, while the pool is busy, computes all parts itself, as does any caller without
   POSIX threads. After a fork the child begins with no workers. */
typedef void part_function(void *context, ptrdiff_t part, int worker); /* `worker` is less than the number of threads; 0 is the caller */

struct step {
    ptrdiff_t parts;
    part_function *function;
};

enum { MOST_STEPS = 4 };

static void alone(int steps, const struct step *step, void *context)
{
    for (int i = 0; i < steps; i++)
        for (ptrdiff_t part = 0; part < step[i].parts; part++)
            step[i].function(context, part, 0);
}

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>

enum { MOST_WORKERS = 255 };

static struct {
    pthread_mutex_t busy, lock; /* held by a caller for the whole call; held to look at what follows */
    pthread_cond_t called;
    int workers, registered; /* threads that exist; whether forks are taken care of */
    unsigned long call;      /* counts the calls */
    int wanted, working;     /* how many workers the present call may have, 0 without one; how many are at it */
    int steps;
    struct step step[MOST_STEPS];
    ptrdiff_t next[MOST_STEPS], finished[MOST_STEPS]; /* parts of each step */
    void *context;
} pool = {
    .busy = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .called = PTHREAD_COND_INITIALIZER,
};

static void pool_in_child(void) /* after a fork only the thread that called it is left */
{
    pthread_mutex_init(&pool.busy, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.called, NULL);
    pool.workers = pool.wanted = pool.working = 0;
}

static void pool_pause(int *count) /* for a moment; after a thousand of them other threads have their turn */
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (*count < 1000)
        ++*count;
    else
        sched_yield();
}

static void pool_take(int worker) /* parts, as long as there are any */
{
    for (int i = 0, count = 0; i < pool.steps; i++) {
        const struct step step = pool.step[i];
        for (ptrdiff_t part; (part = __atomic_fetch_add(&pool.next[i], 1, __ATOMIC_RELAXED)) < step.parts;) {
            step.function(pool.context, part, worker);
            __atomic_fetch_add(&pool.finished[i], 1, __ATOMIC_RELEASE);
        }
        while ((!worker || i + 1 < pool.steps) && __atomic_load_n(&pool.finished[i], __ATOMIC_ACQUIRE) < step.parts)
            pool_pause(&count);
    }
}

static void *pool_work(void *number)
{
    const int worker = (int)(ptrdiff_t)number;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.call == seen || worker > pool.wanted)
            pthread_cond_wait(&pool.called, &pool.lock);
        seen = pool.call;
        __atomic_fetch_add(&pool.working, 1, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&pool.lock);
        pool_take(worker);
        __atomic_fetch_sub(&pool.working, 1, __ATOMIC_RELEASE);
        pthread_mutex_lock(&pool.lock);
    }
    return NULL;
}

/* Have `wanted` workers, or as many as can be started; returns how many of them there are. */
static int pool_start(int wanted)
{
    sigset_t all, before;
    if (!pool.registered)
        pool.registered = !pthread_atfork(NULL, NULL, pool_in_child);
    if (!pool.registered)
        return 0;
    sigfillset(&all);
    if (pool.workers < wanted && !pthread_sigmask(SIG_SETMASK, &all, &before)) {
        for (pthread_t thread; pool.workers < wanted; pool.workers++) {
            if (pthread_create(&thread, NULL, pool_work, (void *)(ptrdiff_t)(pool.workers + 1)))
                break;
            pthread_detach(thread);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return (int)min(pool.workers, wanted);
}

/* Call the function of each step for each of its parts, from 0 on, on up to `threads` threads; a step begins when the one before is done.
   Returns when all are. */
static void in_steps(ptrdiff_t threads, int steps, const struct step *step, void *context)
{
    ptrdiff_t most = 0;
    for (int i = 0; i < steps; i++)
        most = max(most, step[i].parts);
    const int wanted = (int)min(min(threads, most) - 1, MOST_WORKERS);
    if (wanted < 1 || pthread_mutex_trylock(&pool.busy)) {
        alone(steps, step, context);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    memcpy(pool.step, step, sizeof *step * (size_t)steps);
    memset(pool.next, 0, sizeof pool.next);
    memset(pool.finished, 0, sizeof pool.finished);
    pool.steps = steps;
    pool.context = context;
    pool.call++;
    pool.wanted = pool_start(wanted);
    pthread_mutex_unlock(&pool.lock); /* first: who wakes needs it */
    pthread_cond_broadcast(&pool.called);
    pool_take(0);
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0; /* who has not woken by now is not waited for */
    pthread_mutex_unlock(&pool.lock);
    for (int count = 0; __atomic_load_n(&pool.working, __ATOMIC_ACQUIRE);) /* the others are about to leave */
        pool_pause(&count);
    pthread_mutex_unlock(&pool.busy);
}
#else
enum { MOST_WORKERS = 0 };

static void in_steps(ptrdiff_t threads, int steps, const struct step *step, void *context)
{
    (void)threads;
    alone(steps, step, context);
}
#endif

static void in_parallel(ptrdiff_t threads, ptrdiff_t parts, part_function *function, void *context)
{
    const struct step step = {parts, function};
    in_steps(threads, 1, &step, context);
}
