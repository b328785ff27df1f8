// The reports of the runs with millions of messages.

extension BacklogBench.Outcome {
    var json: JSONValue {
        .object([
            .init("backlog", .number(self.depth)),
            .init("fillPerSecond", .decimal(self.fillRate, places: 0)),
            .init("shallow", Self.json(self.shallow)),
            .init("deep", Self.json(self.deep)),
            .init("peakAnonymousBytes", .number(self.peakAnonymousBytes)),
            .init("rawBytes", .number(self.rawBytes)),
            .init("diskBytes", .number(self.diskBytes)),
            .init("lmdbBytes", .number(self.lmdbBytes)),
            .init("closeSeconds", .decimal(self.closeSeconds, places: 4)),
            .init("openedCleanSeconds", .decimal(self.openedCleanSeconds, places: 4)),
            .init("openedKilledSeconds", .decimal(self.openedKilledSeconds, places: 4)),
            .init("replayedRecords", .number(self.replayedRecords)),
        ])
    }

    private static func json(_ rates: BacklogBench.Rates) -> JSONValue {
        .object([
            .init("publishPerSecond", .decimal(rates.publish.rate, places: 0)),
            .init("roundsPerSecond", .decimal(rates.round.rate, places: 0)),
            .init("takePerSecond", .decimal(rates.take.rate, places: 0)),
        ])
    }

    var text: String {
        var table = TextTable([
            ("AT DEPTH", .left), ("1,000", .right), (groupedText(Double(self.depth)), .right), ("SHARE", .right),
        ])
        for (name, rates) in [
            ("publish", \BacklogBench.Rates.publish), ("publish, take, acknowledge", \.round),
            ("take, acknowledge", \.take),
        ] {
            let (shallow, deep) = (self.shallow[keyPath: rates].rate, self.deep[keyPath: rates].rate)
            table.add([
                name, "\(groupedText(shallow))/s", "\(groupedText(deep))/s",
                "\(decimalText(shallow > 0 ? deep / shallow * 100 : 0, places: 0))%",
            ])
        }
        let seconds = { (value: Double) in timeText(nanoseconds: value * 1e9) }
        return table.text + """
            filled at \(groupedText(self.fillRate))/s; anonymous memory at most \(sizeText(self.peakAnonymousBytes)); \
            disk \(sizeText(self.diskBytes)), \(sizeText(self.lmdbBytes)) of it LMDB's, for \
            \(sizeText(self.rawBytes)) of bodies \
            (\(decimalText(Double(self.diskBytes) / Double(max(1, self.rawBytes)), places: 2)))
            closed in \(seconds(self.closeSeconds)); from opening to the first delivery \
            \(seconds(self.openedCleanSeconds)) after that, \(seconds(self.openedKilledSeconds)) after kill -9 \
            with \(counted(self.replayedRecords, "record")) to replay

            """
    }
}

extension ScheduleBench.Outcome {
    var json: JSONValue {
        .object([
            .init("scheduled", .number(self.count)),
            .init("schedulePerSecond", .decimal(self.scheduleRate, places: 0)),
            .init("peakAnonymousBytes", .number(self.peakAnonymousBytes)),
            .init("rawBytes", .number(self.rawBytes)),
            .init("diskBytes", .number(self.diskBytes)),
            .init("quiet", Self.json(self.quiet)),
            .init("burstPerSecond", .decimal(self.burstRate, places: 0)),
            .init("burst", Self.json(self.burst)),
        ])
    }

    private static func json(_ lateness: ScheduleBench.Lateness) -> JSONValue {
        .object([
            .init("messages", .number(lateness.late.count)),
            .init("early", .number(lateness.early)),
            .init("latenessMicros", BenchResult.json(lateness.late)),
        ])
    }

    var text: String {
        let share = { (lateness: ScheduleBench.Lateness) in
            [0.5, 0.99, 0.999].map { timeText(nanoseconds: lateness.late.quantile($0)) }.joined(separator: ", ")
                + "; \(lateness.early) of \(counted(lateness.late.count, "message")) early"
        }
        return """
            \(groupedText(Double(self.count))) messages scheduled over an hour, at \(groupedText(self.scheduleRate))/s; \
            anonymous memory at most \(sizeText(self.peakAnonymousBytes)); disk \(sizeText(self.diskBytes)) for \
            \(sizeText(self.rawBytes)) of bodies
            late by p50, p99, p99.9, single messages: \(share(self.quiet))
            late by p50, p99, p99.9, at most, \(groupedText(self.burstRate)) a second due: \(share(self.burst))

            """
    }
}
