// SPDX-License-Identifier: Apache-2.0
//
// Options that every subcommand has, in one place so that they read the same everywhere.

import ArgumentParser
import Logging

/// `--log-level`, and the logger that it sets up.
struct LogOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Log to standard error from this level on: trace, debug, info, notice, warning, error or critical.",
            valueName: "level"),
        transform: Self.level)
    var logLevel = Logger.Level.notice

    /// A logger to standard error, labelled with the subcommand.
    func logger(_ label: String) -> Logger {
        var logger = Logger(label: label) { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = logLevel
        return logger
    }

    private static func level(_ name: String) throws -> Logger.Level {
        guard let level = Logger.Level(rawValue: name) else { throw ValidationError("there is no such level") }
        return level
    }
}

/// `--json`, for subcommands that report something.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print JSON instead of text.")
    var json = false
}
