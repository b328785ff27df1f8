internal import StalkCLI
