// Two collectors of different backends with their workers and one server, and a client that is not the one under test.

import Foundation
import FoundationNetworking
import StalkAdmin
import StalkCore
import StalkLocal
import StalkTesting
import StalkWorker

/// A local queue and one in memory, each with a worker, shown by one server.
struct Pipeline: Sendable {
    struct Answer {
        var status: Int
        var headers: [String: String]
        var body: Data

        var text: String { String(decoding: self.body, as: UTF8.self) }
        var type: String? { self.headers["Content-Type"] }
        var json: [String: Any] { (try? JSONSerialization.jsonObject(with: self.body)) as? [String: Any] ?? [:] }
    }

    var store: LocalStore
    var local: LocalQueue
    var memory: InMemoryCollector
    var workers: [Worker]
    var address: AdminAddress

    func get(_ path: String, token: String? = nil) async throws -> Answer {
        try await self.ask("GET", path, nil, token)
    }

    func post(_ path: String, _ body: String = "", token: String? = nil) async throws -> Answer {
        try await self.ask("POST", path, body, token)
    }

    private func ask(_ method: String, _ path: String, _ body: String?, _ token: String?) async throws -> Answer {
        guard let url = URL(string: "http://\(self.address)\(path)") else { throw URLError(.badURL) }
        var request = URLRequest(url: url, timeoutInterval: 60)
        request.httpMethod = method
        request.httpBody = body.map { Data($0.utf8) }
        if let token { request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization") }
        let (data, response) = try await URLSession.shared.data(for: request)
        guard let response = response as? HTTPURLResponse else { throw URLError(.badServerResponse) }
        let headers = response.allHeaderFields.map { (String(describing: $0.key), String(describing: $0.value)) }
        return Answer(status: response.statusCode, headers: Dictionary(headers) { $1 }, body: data)
    }
}

/// Runs `body` beside a pipeline whose handlers fail on the body `bad`, once, and shuts all of it down afterwards.
func withPipeline(
    token: String? = nil,
    patience: Duration = .seconds(15),
    concurrency: Int = 2,
    handler: @escaping @Sendable (Delivery) async throws -> Void = { delivery in
        if delivery.text == "bad", delivery.attempt == 1 { throw DeadLetter("it is bad") }
    },
    _ body: @Sendable (Pipeline) async throws -> Void
) async throws {
    let path = NSTemporaryDirectory() + "/stalk-admin-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    let store = try await LocalStore.open(at: path + "/queues")
    let local = try store.queue("work")
    try await local.publish(Message("first"))
    let memory = InMemoryCollector(queue: try QueueName("jobs"), clock: ContinuousClock())
    func options(_ id: String, _ backend: String) -> WorkerOptions {
        WorkerOptions(collectorID: id, backend: backend, concurrency: concurrency)
    }
    let first = Worker(acknowledging: local, options: options("one", "local"), handler: handler)
    let second = Worker(acknowledging: memory, options: options("two", "memory"), handler: handler)
    let (listening, isListening) = AsyncThrowingStream.makeStream(of: AdminAddress.self)
    let server = AdminServer(
        options: AdminOptions(address: AdminAddress(port: 0), token: token, patience: patience),
        collectors: [AdminCollector(first), AdminCollector(second)],
        store: store
    ) { isListening.yield($0) }
    try await withThrowingTaskGroup(of: Void.self) { group in
        for worker in [first, second] {
            group.addTask { do { try await worker.run() } catch is CancellationError {} }
        }
        group.addTask {
            do {
                try await server.run()
                isListening.finish()
            } catch {
                isListening.finish(throwing: error)
            }
        }
        defer { group.cancelAll() }
        for try await address in listening {
            try await local.drained()
            let pipeline = Pipeline(
                store: store,
                local: local,
                memory: memory,
                workers: [first, second],
                address: address
            )
            try await body(pipeline)
            break
        }
    }
    try await store.close()
}

/// Sends text over a socket of its own and returns what comes until the other side closes it.
func rawExchange(_ text: String, at address: AdminAddress) async throws -> String {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            var place = sockaddr_in()
            place.sin_family = sa_family_t(AF_INET)
            place.sin_port = UInt16(address.port).bigEndian
            place.sin_addr.s_addr = inet_addr(address.host)
            let size = socklen_t(MemoryLayout<sockaddr_in>.size)
            let isConnected = withUnsafePointer(to: &place) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, size) == 0 }
            }
            guard isConnected else {
                continuation.resume(throwing: URLError(.cannotConnectToHost))
                return
            }
            var limit = timeval(tv_sec: 60, tv_usec: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            let bytes = Array(text.utf8)
            _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
            var answer: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = recv(descriptor, &buffer, buffer.count, 0)
                if count < 0 && errno == EAGAIN { answer += Array("the server never closed".utf8) }
                if count <= 0 { break }
                answer += buffer.prefix(count)
            }
            continuation.resume(returning: String(decoding: answer, as: UTF8.self))
        }
    }
}
