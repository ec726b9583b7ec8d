/* Latents to a small RGB preview by a linear map per model family. */
#pragma once
struct preview_matrix { const float *rgb; int channels; const float *smooth; /* [channels][3] row major; 3x3 or NULL */ };
/* preview_sd1 is the map of SD 1.x and 2.x latents, preview_sdxl that of SDXL (with smoothing). */
extern const struct preview_matrix preview_sd1, preview_sdxl;
