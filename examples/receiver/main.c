/* A receiver in one file: reads measurements as 32-bit floats, writes estimates as 32-bit floats, sample by sample.
 *
 *   fanfold export RUN --to c --out receiver
 *   cc -std=c99 -O3 -Ireceiver examples/receiver/main.c receiver/estimator.c -lm -o receive
 *   ./receive < y.f32 > x_hat.f32
 *
 * It is for an estimator of y alone; one that takes the noise variance has it as the second argument of estimator_run.
 * One that says how sure it is has a second output, var, which is not written here.
 * The estimator allocates nothing: all memory is here, and its size is known when this is compiled.
 */
#include <stdio.h>

#include "estimator.h"

static float y[ESTIMATOR_Y_SIZE];         /* measurements; complex ones come as re, im, re, im, ... */
static float x_hat[ESTIMATOR_X_HAT_SIZE]; /* what the estimator says of them */
#ifdef ESTIMATOR_VAR_SIZE
static float var[ESTIMATOR_VAR_SIZE]; /* how far off it expects to be, as a variance */
#define SAID x_hat, var
#else
#define SAID x_hat
#endif
static estimator_workspace work;          /* one for each thread that calls the estimator */

int main(void) {
    long samples = 0;
    size_t count;
    while ((count = fread(y, sizeof y[0], ESTIMATOR_Y_SIZE, stdin)) == ESTIMATOR_Y_SIZE) {
        estimator_run(y, SAID, &work);
        if (fwrite(x_hat, sizeof x_hat[0], ESTIMATOR_X_HAT_SIZE, stdout) != ESTIMATOR_X_HAT_SIZE) {
            fprintf(stderr, "receive: sample %ld cannot be written\n", samples);
            return 1;
        }
        samples++;
    }
    if (count != 0) {
        fprintf(stderr, "receive: sample %ld is cut short: %lu numbers of %d\n", samples, (unsigned long)count,
                ESTIMATOR_Y_SIZE);
        return 2;
    }
    fprintf(stderr, "receive: %ld samples, %lu bytes of workspace\n", samples, (unsigned long)sizeof work);
    return 0;
}
