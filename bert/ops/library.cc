// The entry point that MXNet calls when it loads the library.
#include "operator.h"

MXReturnValue initialize(int version) {
  if (version < 10900 || version >= 20000) {
    MX_ERROR_MSG << "these operators were built for MXNet 1.9";
    return MX_FAIL;
  }
  return MX_SUCCESS;
}
