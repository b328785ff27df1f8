// Is a place fit for a store? Looking at it.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkPlatform
internal import StalkZstd

extension LocalStore {
    /// Says whether a place is fit for a store: file system, real syncs, space, limits, rights, clock, libraries.
    ///
    /// The directory need not be there yet; then the nearest one above it is looked at. A store in it may be open: its
    /// lock is not asked for. Syncs are timed for half a second in a file of 1 MiB that is gone afterwards.
    ///
    /// - Parameter path: The directory of a store, or one that is to become that.
    /// - Returns: What was found; a place of which nothing can be found out is a finding too.
    public static func diagnose(_ path: String) async throws -> Diagnosis {
        try await onOwnThread("stalk-doctor") { () throws(StalkError) in
            let clock = SystemStoreClock()
            let machine = MachineFacts(
                wall: clock.wallTime().millisecondsSince1970,
                sinceBoot: clock.bootTime().nanoseconds / 1_000_000,
                bootID: clock.bootID,
                lmdb: Environment.libraryVersion,
                zstd: ZstdLibrary.version
            )
            let place: Result<PlaceFacts, StalkError>
            do throws(StalkError) {
                place = .success(try PlaceFacts(at: path, syncsFor: .milliseconds(500)))
            } catch {
                place = .failure(error)
            }
            return Diagnosis(path: path, place, store: Self.hasStore(path), machine)
        }
    }

    private static func hasStore(_ path: String) -> Result<Bool, StalkError> {
        do throws(StalkError) {
            return .success(try StoreMarker.read(in: RealDirectory(path: path, createIfMissing: false)) != nil)
        } catch {
            return error.code == .noSuchStore ? .success(false) : .failure(error)
        }
    }
}
