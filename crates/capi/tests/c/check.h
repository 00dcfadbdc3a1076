/* What the test programs share: a check that says where it failed. */
#ifndef CHECK_H
#define CHECK_H

#include <pmalloc.h>

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                  \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* Checks that a call returns what is expected. */
#define EXPECT(expected, call)                                                                                         \
  do {                                                                                                                 \
    int found_ = (call);                                                                                                \
    if (found_ != (expected)) {                                                                                         \
      fprintf(stderr, "%s:%d: %s: %d, not %s: %s\n", __FILE__, __LINE__, #call, found_, #expected, pma_last_error());    \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

#define OK(call) EXPECT(0, call)

#endif
