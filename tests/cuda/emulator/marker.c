/* What tells the program that no driver need be asked before this library (engine/backend/library.h). In no library that is installed. */
extern const char denoised_backend_emulated[];
__attribute__((visibility("default"))) const char denoised_backend_emulated[] = "an emulated GPU, for tests";
