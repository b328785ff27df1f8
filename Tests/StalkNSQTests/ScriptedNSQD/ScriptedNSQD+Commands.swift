internal import DequeModule
internal import NIOCore
internal import StalkCore
internal import StalkNSQ

/// A client as the server knows it.
struct Client {
    let handler: NIOLoopBound<ClientHandler>
    var isIdentified = false
    var isAuthorized = false
    var messageTimeout: Duration?
    var subscription: (topic: String, channel: String)?
    var ready = 0
    var inFlight = 0
    var isClosing = false
}

struct StoredMessage {
    var key: MessageKey
    var timestamp: Int64
    var attempts: UInt16 = 0
    var body: [UInt8]
}

struct InFlight {
    var message: StoredMessage
    var client: Int
    var sentAt: Duration
    var deadline: Duration
}

struct MessageChannel {
    var waiting: Deque<StoredMessage> = []
    var deferred: [(due: Duration, message: StoredMessage)] = []
    var inFlight: [MessageKey: InFlight] = [:]
    var clients: [Int] = []
    var turn = 0
    var nextDue: Duration?
    var finished = 0
}

struct Topic {
    var channels: [String: MessageChannel] = [:]
    /// What came before the first channel.
    var backlog: Deque<StoredMessage> = []
    var delayedBacklog: [(due: Duration, message: StoredMessage)] = []
    var published = 0
}

// What nsqd does with each command.
extension ScriptedNSQD {
    func obey(_ command: NSQCommand, _ number: Int, isSilent: Bool) {
        guard let client = self.clients[number] else { return }
        let answer = { (frame: NSQFrame) in if !isSilent { client.handler.value.write(frame) } }
        if let refusal = self.refusal(of: command, from: client) { return self.refuse(refusal, number) }
        switch command {
        case .identify(let json): self.identify(json, number, answer)
        case .auth(let secret):
            guard secret.elementsEqual((self.options.authSecret ?? "").utf8) else {
                return self.refuse("E_AUTH_FAILED AUTH failed", number)
            }
            self.clients[number]?.isAuthorized = true
            answer(.response(Array(#"{"identity":"test","permission_count":1}"#.utf8)))
        case .subscribe(let topic, let channel):
            self.subscribe(number, topic, channel)
            answer(.ok)
        case .ready(let count):
            self.clients[number]?.ready = count
            self.pump(client)
        case .finish(let key), .touch(let key), .requeue(let key, _):
            self.settle(command, key, number)
        case .startClose:
            self.clients[number]?.isClosing = true
            answer(.closeWait)
        case .nop:
            break
        case .publish(let topic, let body):
            self.put([body], topic, delay: .zero)
            answer(.ok)
        case .multiPublish(let topic, let bodies):
            self.put(bodies, topic, delay: .zero)
            answer(.ok)
        case .deferredPublish(let topic, let millis, let body):
            self.put([body], topic, delay: .milliseconds(millis))
            answer(.ok)
        }
    }

    private func refusal(of command: NSQCommand, from client: Client) -> String? {
        func bad(_ name: String) -> Bool {
            let stem = name.hasSuffix("#ephemeral") ? name.dropLast(10) : name[...]
            let isAllowed = stem.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
            return !(1...64).contains(name.utf8.count) || stem.isEmpty || !isAllowed
        }
        let needsAuth = self.options.authSecret != nil && !client.isAuthorized
        switch command {
        case .identify:
            return client.isIdentified ? "E_INVALID cannot IDENTIFY in current state" : nil
        case .subscribe(let topic, let channel):
            if needsAuth { return "E_AUTH_FIRST AUTH required before SUB" }
            if bad(topic) { return "E_BAD_TOPIC SUB topic name \"\(topic)\" is not valid" }
            if bad(channel) { return "E_BAD_CHANNEL SUB channel name \"\(channel)\" is not valid" }
            return client.subscription != nil ? "E_INVALID cannot SUB in current state" : nil
        case .ready(let count):
            return (0...self.options.maxReadyCount).contains(count) ? nil : "E_INVALID RDY count \(count) out of range"
        case .deferredPublish(_, let millis, _) where .milliseconds(millis) > self.options.maxDelay || millis < 0:
            return "E_INVALID DPUB timeout \(millis) out of range"
        case .publish(let topic, _), .multiPublish(let topic, _), .deferredPublish(let topic, _, _):
            if needsAuth { return "E_AUTH_FIRST AUTH required before PUB" }
            return bad(topic) ? "E_BAD_TOPIC PUB topic name \"\(topic)\" is not valid" : nil
        default:
            return nil
        }
    }

    private func identify(_ json: [UInt8], _ number: Int, _ answer: (NSQFrame) -> Void) {
        guard let wish = try? JSON(parsing: json), let handler = self.clients[number]?.handler else {
            return self.refuse("E_BAD_BODY IDENTIFY failed to decode JSON body", number)
        }
        self.clients[number]?.isIdentified = true
        if let millis = wish["msg_timeout"]?.integer {
            guard .milliseconds(millis) <= self.options.maxMessageTimeout else {
                return self.refuse("E_BAD_BODY IDENTIFY msg timeout (\(millis)) is invalid", number)
            }
            self.clients[number]?.messageTimeout = .milliseconds(millis)
        }
        self.scheduleHeartbeats(number, wish["heartbeat_interval"]?.integer ?? 30_000)
        guard wish["feature_negotiation"]?.bool == true else { return answer(.ok) }
        let tls = wish["tls_v1"]?.bool == true ? self.options.tls : nil
        let usesDeflate = wish["deflate"]?.bool == true && self.options.allowsDeflate
        let timeout = self.clients[number]?.messageTimeout ?? self.options.messageTimeout
        func millis(_ duration: Duration) -> JSON { .number(Double(duration.wholeMillisecondsRoundedUp)) }
        let features: [String: JSON] = [
            "max_rdy_count": .number(Double(self.options.maxReadyCount)), "version": .string("1.3.0"),
            "max_msg_timeout": millis(self.options.maxMessageTimeout), "msg_timeout": millis(timeout),
            "tls_v1": .bool(tls != nil), "deflate": .bool(usesDeflate), "deflate_level": .number(6),
            "max_deflate_level": .number(6), "snappy": .bool(false), "sample_rate": .number(0),
            "auth_required": .bool(self.options.authSecret != nil), "output_buffer_size": .number(16_384),
            "output_buffer_timeout": .number(250),
        ]
        answer(.response(Array(JSON.object(features).text.utf8)))
        handler.value.upgrade(tls: tls, deflateLevel: usesDeflate ? 6 : nil)
    }

    private func scheduleHeartbeats(_ number: Int, _ millis: Int) {
        guard millis > 0, self.options.sendsHeartbeats else { return }
        let interval = TimeAmount.milliseconds(Int64(millis))
        self.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { task in
            self.assumeIsolated {
                guard let handler = $0.clients[number]?.handler.value else { return task.cancel() }
                handler.write(.heartbeat)
                handler.flush()
            }
        }
    }

    private func subscribe(_ number: Int, _ topic: String, _ channel: String) {
        self.clients[number]?.subscription = (topic, channel)
        var entry = self.topics[topic] ?? Topic()
        if entry.channels[channel] == nil {
            entry.channels[channel] = MessageChannel()
            if entry.channels.count == 1 {
                entry.channels[channel]?.waiting = entry.backlog
                entry.channels[channel]?.deferred = entry.delayedBacklog
                entry.channels[channel]?.nextDue = entry.delayedBacklog.map(\.due).min()
                entry.backlog = []
                entry.delayedBacklog = []
            }
        }
        entry.channels[channel]?.clients.append(number)
        self.topics[topic] = entry
    }

    // MARK: Messages

    func put(_ bodies: [[UInt8]], _ topic: String, delay: Duration) {
        let now = self.clock.elapsed()
        let timestamp = 1_700_000_000_000_000_000 + now.wholeMillisecondsRoundedUp * 1_000_000
        let messages = bodies.map { StoredMessage(key: self.makeKey(), timestamp: timestamp, body: $0) }
        var entry = self.topics.removeValue(forKey: topic) ?? Topic()
        entry.published += bodies.count
        if entry.channels.isEmpty {
            if delay == .zero {
                entry.backlog.append(contentsOf: messages)
            } else {
                entry.delayedBacklog += messages.map { (now + delay, $0) }
            }
        }
        let names = Array(entry.channels.keys)
        for name in names {
            if delay == .zero {
                entry.channels[name]?.waiting.append(contentsOf: messages)
            } else {
                entry.channels[name]?.deferred += messages.map { (now + delay, $0) }
                let due = min(entry.channels[name]?.nextDue ?? now + delay, now + delay)
                entry.channels[name]?.nextDue = due
            }
        }
        self.topics[topic] = entry
        for name in names { self.pump(topic, name) }
    }

    private func settle(_ command: NSQCommand, _ key: MessageKey, _ number: Int) {
        guard let (topic, name) = self.clients[number]?.subscription,
            let entry = self.topics[topic]?.channels[name]?.inFlight[key], entry.client == number
        else {
            let (word, code) =
                switch command {
                case .finish: ("FIN", "E_FIN_FAILED")
                case .touch: ("TOUCH", "E_TOUCH_FAILED")
                default: ("REQ", "E_REQ_FAILED")
                }
            return self.refuse("\(code) \(word) \(key) failed ID not in flight", number)
        }
        let now = self.clock.elapsed()
        if case .touch = command {
            let timeout = self.clients[number]?.messageTimeout ?? self.options.messageTimeout
            let deadline = min(now + timeout, entry.sentAt + self.options.maxMessageTimeout)
            self.topics[topic]?.channels[name]?.inFlight[key]?.deadline = deadline
            return
        }
        self.topics[topic]?.channels[name]?.inFlight[key] = nil
        self.clients[number]?.inFlight -= 1
        if case .requeue(_, let millis) = command {
            let delay = min(.milliseconds(millis), self.options.maxDelay)
            if delay <= .zero {
                self.topics[topic]?.channels[name]?.waiting.append(entry.message)
            } else {
                self.topics[topic]?.channels[name]?.deferred.append((now + delay, entry.message))
                let due = min(self.topics[topic]?.channels[name]?.nextDue ?? now + delay, now + delay)
                self.topics[topic]?.channels[name]?.nextDue = due
            }
        } else {
            self.topics[topic]?.channels[name]?.finished += 1
        }
        self.pump(topic, name)
    }

    private func pump(_ client: Client) {
        if let (topic, channel) = client.subscription { self.pump(topic, channel) }
    }

    /// Hands out what waits to clients whose RDY is above what they have.
    func pump(_ topic: String, _ name: String) {
        guard var channel = self.topics[topic]?.channels.removeValue(forKey: name) else { return }
        defer { self.topics[topic]?.channels[name] = channel }
        let now = self.clock.elapsed()
        while !channel.waiting.isEmpty, let number = self.nextClient(of: &channel), let client = self.clients[number] {
            let room = client.ready - client.inFlight
            // A run for one client, so that a long backlog costs no search for each message.
            for _ in 0..<(channel.clients.count > 1 ? 1 : room) {
                guard var message = channel.waiting.popFirst() else { break }
                message.attempts &+= 1
                let timeout = client.messageTimeout ?? self.options.messageTimeout
                channel.inFlight[message.key] = InFlight(
                    message: message,
                    client: number,
                    sentAt: now,
                    deadline: now + timeout
                )
                channel.nextDue = min(channel.nextDue ?? now + timeout, now + timeout)
                self.clients[number]?.inFlight += 1
                client.handler.value.write(
                    .message(
                        NSQMessage(
                            timestamp: message.timestamp,
                            attempts: message.attempts,
                            key: message.key,
                            body: message.body
                        )
                    )
                )
            }
        }
    }

    private func nextClient(of channel: inout MessageChannel) -> Int? {
        for _ in channel.clients.indices {
            channel.turn = (channel.turn + 1) % channel.clients.count
            let number = channel.clients[channel.turn]
            guard let client = self.clients[number], !client.isClosing, client.ready > client.inFlight,
                !client.handler.value.isClosing
            else { continue }
            return number
        }
        return nil
    }

    // MARK: Time

    /// Puts back what is due, and what was not finished in time.
    func tick() {
        let now = self.clock.elapsed()
        for (topic, entry) in self.topics {
            for (name, channel) in entry.channels where channel.nextDue.map({ $0 <= now }) ?? false {
                self.expire(topic, name, now: now)
                self.pump(topic, name)
            }
        }
        for client in self.clients.values { client.handler.value.flush() }
    }

    private func expire(_ topic: String, _ name: String, now: Duration) {
        guard var channel = self.topics[topic]?.channels.removeValue(forKey: name) else { return }
        for item in channel.deferred.sorted(by: { $0.due < $1.due }) where item.due <= now {
            channel.waiting.append(item.message)
        }
        channel.deferred.removeAll { $0.due <= now }
        for (key, entry) in channel.inFlight where entry.deadline <= now {
            channel.inFlight[key] = nil
            self.clients[entry.client]?.inFlight -= 1
            channel.waiting.append(entry.message)
        }
        let dues = channel.deferred.map(\.due) + channel.inFlight.values.map(\.deadline)
        channel.nextDue = dues.min()
        self.topics[topic]?.channels[name] = channel
    }

    // MARK: Looking

    /// The bodies that wait in a topic that nobody subscribed to.
    func backlog(of topic: String) -> [[UInt8]] { self.topics[topic]?.backlog.map(\.body) ?? [] }

    func published(to topic: String) -> Int { self.topics[topic]?.published ?? 0 }

    /// How many messages of a channel are not finished.
    func unfinished(_ topic: String, _ channel: String) -> Int {
        guard let channel = self.topics[topic]?.channels[channel] else { return 0 }
        return channel.waiting.count + channel.deferred.count + channel.inFlight.count
    }

    func inFlight(_ topic: String, _ channel: String) -> Int {
        self.topics[topic]?.channels[channel]?.inFlight.count ?? 0
    }

    /// The RDY counts of those who subscribed, in order.
    var readyCounts: [Int] {
        self.clients.sorted { $0.key < $1.key }.filter { $0.value.subscription != nil }.map(\.value.ready)
    }
}
