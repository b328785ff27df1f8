// The executable `stalk`: everything it does is in StalkCLI, where tests reach it.
internal import StalkCLI

await CommandLineTool.main()
