// Room that is kept for bad times, and new segments.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// A file that takes room on the disk, to be removed when LMDB can't grow any more, so that finishing messages can still
/// give space back.
enum Ballast {
    static let name = "ballast"
    static let byteCount = 4 << 20

    /// Makes the file, unless it is there.
    static func make(in directory: any StorageDirectory) throws(StalkError) {
        guard !(try directory.list("").contains(Self.name)) else { return }
        let file = try directory.open(Self.name, .new)
        do throws(StalkError) {
            try file.fillWithZeros(Self.byteCount)
        } catch {
            try? directory.remove(Self.name)
            throw error
        }
    }
}

extension Segment {
    /// Makes a segment of zeros, durably, name and all.
    static func make(
        _ number: UInt64,
        _ size: Int,
        in directory: any StorageDirectory
    ) throws(StalkError) -> Segment {
        let path = Segment.path(number)
        let file = try directory.open(path, .new)
        do throws(StalkError) {
            try file.fillWithZeros(size)
            try directory.sync(Segment.directory)
        } catch {
            try? directory.remove(path)
            throw error
        }
        return Segment(number: number, file: file)
    }
}
