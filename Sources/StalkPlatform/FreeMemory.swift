// Memory that was freed and that the allocator still holds.

internal import CStalkSystem

/// Gives memory that is free back to the system, so that what is resident is what is used.
package func returnFreeMemory() {
    CStalkSystem_returnFreeMemory()
}
