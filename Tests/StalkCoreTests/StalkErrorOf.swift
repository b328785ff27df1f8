import StalkCore
import Testing

/// The error that an action throws; a test fails here if it throws none, or one of another kind.
func stalkError(
    sourceLocation: SourceLocation = #_sourceLocation,
    of action: () throws -> Void
) throws -> StalkError {
    try #require(throws: StalkError.self, sourceLocation: sourceLocation, performing: action)
}
