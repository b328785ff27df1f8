// One import for users: the vocabulary, the local engine, the worker.

@_exported public import StalkCore
@_exported public import StalkLocal
@_exported public import StalkWorker
