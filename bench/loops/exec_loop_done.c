// SPDX-License-Identifier: Apache-2.0
// The program that exec_loop executes: it ends at once. It has no library, whose start takes twice as long as all else,
// and differs from run to run by more than a tracer adds.
void _start(void)
{
#if defined(__x86_64__)
	__asm__ volatile("mov $60, %eax; xor %edi, %edi; syscall");
#elif defined(__aarch64__)
	__asm__ volatile("mov x8, #93; mov x0, #0; svc #0");
#endif
	__builtin_unreachable();
}
