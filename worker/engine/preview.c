/* Linear maps fitted between latents and small pictures; the numbers are those of InvokeAI's step previews. */
#include "worker/engine/preview.h"

#include <stddef.h>

static const float sd1[] = {
    0.3444f, 0.1385f, 0.0670f, 0.1247f, 0.4027f, 0.1494f, -0.3192f, 0.2513f, 0.2103f, -0.1307f, -0.1874f, -0.7445f,
};
static const float sdxl[] = {
    0.3816f, 0.4930f, 0.5320f, -0.3753f, 0.1631f, 0.1739f, 0.1770f, 0.3588f, -0.2048f, -0.4350f, -0.2644f, -0.4289f,
};
static const float sdxl_smooth[] = { 0.0358f, 0.0964f, 0.0358f, 0.0964f, 0.4711f, 0.0964f, 0.0358f, 0.0964f, 0.0358f };

const struct preview_matrix preview_sd1 = { sd1, 4, NULL };
const struct preview_matrix preview_sdxl = { sdxl, 4, sdxl_smooth };
