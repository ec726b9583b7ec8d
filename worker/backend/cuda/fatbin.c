/* The kernels' fatbin, as the linker sees it: galley_fatbin to galley_fatbin_end. */
__asm__(".pushsection .rodata, \"a\", @progbits\n"
        ".balign 64\n"
        ".globl galley_fatbin\n"
        "galley_fatbin:\n"
        ".incbin \"" GALLEY_FATBIN "\"\n"
        ".globl galley_fatbin_end\n"
        "galley_fatbin_end:\n"
        ".byte 0\n"
        ".popsection\n");
typedef int fatbin_translation_unit; /* C wants a declaration */
