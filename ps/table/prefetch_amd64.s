#include "textflag.h"

// func prefetch(at *uintptr, n int, last uintptr)
TEXT ·prefetch(SB), NOSPLIT, $0-24
	MOVQ at+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ last+16(FP), DX
	TESTQ CX, CX
	JZ   done

next:
	MOVQ (SI), AX
	LEAQ (AX)(DX*1), BX
	PREFETCHT0 (AX)

line:
	ADDQ $64, AX
	CMPQ AX, BX
	JCC  end
	PREFETCHT0 (AX)
	JMP  line

end:
	PREFETCHT0 (BX)
	ADDQ $8, SI
	DECQ CX
	JNZ  next

done:
	RET
