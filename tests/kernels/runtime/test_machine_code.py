"""Figures of machine code, from small listings in the form of cuobjdump and of Triton's AMD assembly."""

from tritone.kernels.runtime.machine_code import of_amdgcn, of_sass

# A loop of products from 0x20 to 0x80 around a shorter one that only waits, and the jump that pads the end.
SASS = """
        /*0010*/                   HFMA2.MMA R2, -RZ, RZ, 0, 0 ;          /* 0x00000000ff027435 */
                                                                          /* 0x000fe200000001ff */
        /*0018*/                   LDGSTS.E.BYPASS.128 [R78], desc[UR6][R8.64], P3 ;  /* 0x03 */
        /*0020*/                   DEPBAR.LE SB0, 0x1 ;                   /* 0x000080400000791a */
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;          /* 0x0000000000007b1d */
        /*0040*/                   HMMA.16816.F32 R4, R8, R12, R4 ;       /* 0x0000000c0804723c */
        /*0050*/                   NANOSLEEP 0x10 ;                       /* 0x0 */
        /*0060*/               @P1 BRA 0x50 ;                             /* 0x0 */
        /*0070*/                   LDGSTS.E.64 [R78+0x3000], desc[UR6][R24.64], P2 ; /* 0x0 */
        /*0080*/              @!P2 BRA 0x20 ;                             /* 0x0000002400582947 */
        /*0090*/                   EXIT ;                                 /* 0x000000000000794d */
        /*00a0*/                   BRA 0xa0;                              /* 0xfffffffc00fc7947 */
"""

AMD = """
\ts_waitcnt lgkmcnt(0)
.LBB0_1:
\tv_mfma_f32_32x32x8_f16 v[0:15], v[16:17], v[18:19], v[0:15]
\ts_waitcnt vmcnt(0)
\ts_barrier
\ts_cbranch_scc0 .LBB0_1
\ts_endpgm
"""


def test_the_main_loop_is_the_one_with_matrix_products():
    figures = of_sass(SASS)
    assert (figures.loop_instructions, figures.loop_waits, figures.copy_bytes) == (7, 2, 16)


def test_without_products_it_is_the_longest_loop_that_contains_no_other():
    assert of_sass(SASS.replace("HMMA.16816.F32", "FFMA")).loop_instructions == 2


def test_code_without_loops_has_none():
    assert of_sass("/*0010*/  EXIT ;").loop_instructions == 0


def test_a_bulk_copy_counts_as_one_of_16_bytes():
    assert of_sass("/*0010*/  UTMALDG.2D [UR8], [UR4] ;").copy_bytes == 16


def test_amd_assembly_has_the_same_figures_without_copies():
    figures = of_amdgcn(AMD)
    assert (figures.loop_instructions, figures.loop_waits, figures.copy_bytes) == (4, 2, 0)
