package docs_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ported are the names of the Python side, for each page of docs/porting.
// Methods have the name of their class in front, parameters are in parentheses.
var ported = map[string]string{
	"asgiref.md": `
		sync_to_async, SyncToAsync, sync_to_async(thread_sensitive=), sync_to_async(executor=), sync_to_async(context=)
		SyncToAsync.single_thread_executor, SyncToAsync.thread_sensitive_context, SyncToAsync.context_to_thread_executor
		SyncToAsync.threadlocal, SyncToAsync.deadlock_context, SyncToAsync.thread_handler
		async_to_sync, AsyncToSync, async_to_sync(force_new_loop=)
		AsyncToSync.executors, AsyncToSync.loop_thread_executors, AsyncToSync.async_single_thread_context
		AsyncToSync.context_to_thread_executor, AsyncToSync.main_wrap
		iscoroutinefunction, markcoroutinefunction
		ThreadSensitiveContext, async with ThreadSensitiveContext
		AsyncSingleThreadContext, with AsyncSingleThreadContext
		CurrentThreadExecutor, CurrentThreadExecutor.run_until_future, CurrentThreadExecutor.submit
		Local, Local(thread_critical=), Local.__getattr__, Local.__setattr__, Local.__delattr__
		timeout, timeout.expired, timeout.remaining
		ApplicationCommunicator, ApplicationCommunicator.send_input, ApplicationCommunicator.receive_output
		ApplicationCommunicator.receive_nothing, ApplicationCommunicator.wait, ApplicationCommunicator.stop
		ApplicationCommunicator.future, ApplicationCommunicator.input_queue, ApplicationCommunicator.output_queue
		StatelessServer, StatelessServer.run, StatelessServer.arun, StatelessServer.handle, StatelessServer.application_send
		WsgiToAsgi, WsgiToAsgiInstance
		is_double_callable, double_to_single_callable, guarantee_single_callable, asgiref.typing
		ASGI_THREADS`,
	"anyio.md": `
		run, run(backend=), run(backend_options=), get_all_backends, get_available_backends
		sleep, sleep_until, sleep_forever, current_time, get_cancelled_exc_class
		to_thread.run_sync, to_thread.run_sync(abandon_on_cancel=), to_thread.run_sync(cancellable=), to_thread.run_sync(limiter=)
		to_thread.current_default_thread_limiter
		from_thread.run, from_thread.run_sync, from_thread.run(token=), from_thread.run_sync(token=), from_thread.check_cancelled
		BlockingPortal, async with BlockingPortal, BlockingPortal.call, BlockingPortal.start_task_soon
		BlockingPortal.start_task, BlockingPortal.stop, BlockingPortal.sleep_until_stopped
		BlockingPortal.wrap_async_context_manager, BlockingPortalProvider
		BlockingPortalProvider(backend=), BlockingPortalProvider(backend_options=)
		start_blocking_portal, start_blocking_portal(backend=), start_blocking_portal(backend_options=), start_blocking_portal(name=)
		checkpoint, checkpoint_if_cancelled, cancel_shielded_checkpoint
		current_token, EventLoopToken, RunVar, RunVar.get, RunVar.set, RunVar.reset, RunvarToken
		CapacityLimiter, async with CapacityLimiter, CapacityLimiter.total_tokens
		CapacityLimiter.borrowed_tokens, CapacityLimiter.available_tokens
		CapacityLimiter.acquire, CapacityLimiter.acquire_nowait, CapacityLimiter.release
		CapacityLimiter.acquire_on_behalf_of, CapacityLimiter.acquire_on_behalf_of_nowait, CapacityLimiter.release_on_behalf_of
		CapacityLimiter.statistics, CapacityLimiterStatistics
		Semaphore, Semaphore.acquire, Semaphore.acquire_nowait, Semaphore.release
		Semaphore.value, Semaphore.max_value, Semaphore.statistics, SemaphoreStatistics
		Lock, async with Lock, Lock(fast_acquire=), Lock.acquire, Lock.acquire_nowait, Lock.release, Lock.locked
		Lock.statistics, LockStatistics
		Event, Event.set, Event.is_set, Event.wait, Event.statistics, EventStatistics
		Condition, Condition.acquire, Condition.acquire_nowait, Condition.release, Condition.locked
		Condition.wait, Condition.wait_for, Condition.notify, Condition.notify_all, Condition.statistics, ConditionStatistics
		ResourceGuard, Future
		CancelScope, CancelScope(deadline=), CancelScope(shield=), CancelScope.cancel, CancelScope.cancel_called
		CancelScope.cancelled_caught, CancelScope.deadline, CancelScope.shield
		move_on_after, move_on_at, fail_after, fail_at, current_effective_deadline
		create_task_group, TaskGroup, async with TaskGroup, TaskGroup.start_soon, TaskGroup.create_task, TaskGroup.start
		TaskGroup.cancel, TaskGroup.cancel_scope
		TaskHandle, await TaskHandle, TaskHandle.cancel, TaskHandle.wait, TaskHandle.return_value, TaskHandle.exception
		TaskHandle.status, TaskHandle.name, TaskHandle.coro, TaskHandle.start_value
		TaskStatus, TaskStatus.started, TASK_STATUS_IGNORED
		gather, amap, as_completed
		get_current_task, TaskInfo, TaskInfo.has_pending_cancellation, get_running_tasks, wait_all_tasks_blocked
		NoEventLoopError, RunFinishedError, WouldBlock, BusyResourceError
		TaskFailed, TaskCancelled, TaskNotFinished
		FutureFailed, FutureCancelled, FutureNotFinished, FutureAlreadyFinished
		current_default_thread_limiter().total_tokens, WorkerThread.MAX_IDLE_TIME
		use_uvloop, loop_factory, debug, clock, instruments
		create_memory_object_stream, open_signal_receiver, to_process.run_sync, to_interpreter.run_sync, BrokenWorkerProcess, BrokenWorkerInterpreter, run_process, open_process
		open_file, Path, connect_tcp, create_tcp_listener
		EndOfStream, IncompleteRead, ClosedResourceError, BrokenResourceError, ConnectionFailed`,
	"easynetwork.md": `
		AsyncBackend, bootstrap, bootstrap(runner_options=), new_builtin_backend, ensure_backend, BuiltinAsyncBackendLiteral
		coro_yield, cancel_shielded_coro_yield, sleep, sleep_until, sleep_forever, current_time
		get_cancelled_exc_class, ignore_cancellation
		open_cancel_scope, CancelScope, CancelScope.cancel, CancelScope.cancel_called, CancelScope.cancelled_caught
		CancelScope.when, CancelScope.reschedule, CancelScope.deadline
		timeout, timeout_at, move_on_after, move_on_at
		gather, create_task_group, TaskGroup, async with TaskGroup, TaskGroup.start_soon, TaskGroup.start
		Task, Task.info, Task.done, Task.cancel, Task.cancelled, Task.wait, Task.join, Task.join_or_cancel
		get_current_task, TaskInfo, TaskInfo.id, TaskInfo.name, TaskInfo.coro
		create_lock, create_fair_lock, ILock, ILock.acquire, ILock.release, ILock.locked
		create_event, IEvent, IEvent.wait, IEvent.set, IEvent.is_set
		create_condition_var, ICondition, ICondition.wait, ICondition.notify, ICondition.notify_all
		run_in_thread, run_in_thread(abandon_on_cancel=)
		create_threads_portal, ThreadsPortal, async with ThreadsPortal, ThreadsPortal.run_coroutine, ThreadsPortal.run_coroutine_soon
		ThreadsPortal.run_sync, ThreadsPortal.run_sync_soon
		AsyncExecutor, AsyncExecutor.run, AsyncExecutor.map, AsyncExecutor.shutdown, AsyncExecutor.shutdown_nowait
		AsyncExecutor.wrapped, unwrap_future
		getaddrinfo, getnameinfo
		create_tcp_connection, create_tcp_connection(happy_eyeballs_delay=), create_tcp_connection(local_address=)
		create_tcp_listeners, create_tcp_listeners(backlog=), create_tcp_listeners(reuse_port=)
		create_unix_stream_connection, create_unix_stream_listener, create_unix_stream_listener(mode=), wrap_stream_socket
		create_udp_endpoint, create_udp_listeners, create_unix_datagram_endpoint, create_unix_datagram_listener
		wrap_connected_datagram_socket
		AsyncBaseTransport, AsyncStreamTransport, AsyncStreamReadTransport, AsyncStreamWriteTransport
		AsyncDatagramTransport, AsyncDatagramReadTransport, AsyncDatagramWriteTransport
		AsyncListener, AsyncDatagramListener
		aclose, is_closing, backend, extra_attributes, aclose_forcefully
		AsyncStreamTransport.recv, AsyncStreamTransport.recv_into, AsyncStreamTransport.recv_with_ancillary
		AsyncStreamTransport.recv_with_ancillary_into
		AsyncStreamTransport.send_all, AsyncStreamTransport.send_all_from_iterable, AsyncStreamTransport.send_all_with_ancillary
		AsyncStreamTransport.send_eof
		AsyncDatagramTransport.recv, AsyncDatagramTransport.recv_with_ancillary
		AsyncDatagramTransport.send, AsyncDatagramTransport.send_with_ancillary
		AsyncListener.serve, AsyncDatagramListener.serve, AsyncDatagramListener.serve_with_ancillary
		AsyncDatagramListener.send_to, AsyncDatagramListener.send_with_ancillary_to
		AsyncStapledStreamTransport, AsyncStapledDatagramTransport, AsyncTLSStreamTransport, AsyncTLSStreamTransport.wrap, AsyncTLSListener
		AsyncStreamEndpoint, AsyncStreamReceiverEndpoint, AsyncStreamSenderEndpoint
		AsyncDatagramEndpoint, AsyncDatagramReceiverEndpoint, AsyncDatagramSenderEndpoint
		StreamProtocol, BufferedStreamProtocol, DatagramProtocol
		send_packet, send_packet_to, send_packet_with_ancillary, recv_packet, recv_packet_with_ancillary, iter_received_packets, wait_connected, is_connected
		AsyncStreamServer, AsyncDatagramServer, ConnectedStreamClient, DatagramClientContext
		AsyncTCPNetworkClient, TCPNetworkClient, AsyncUDPNetworkClient, UDPNetworkClient
		AsyncTCPNetworkServer, StandaloneTCPNetworkServer, AsyncUDPNetworkServer, StandaloneUDPNetworkServer
		AsyncStreamRequestHandler, AsyncDatagramRequestHandler, AsyncStreamClient, AsyncDatagramClient
		serve_forever, shutdown, server_close, get_addresses, NetworkServerThread`,
	"web.md": `
		ThreadSensitiveContext, sync_to_async, async_to_sync, database_sync_to_async, SynchronousOnlyOperation
		connections, transaction.atomic, close_old_connections
		def endpoint, run_in_threadpool, iterate_in_threadpool, sync_to_thread, total_tokens
		BackgroundTask, BackgroundTasks, is_disconnected, CancelledError, lifespan, Depends, TestClient, ContextVar`,
	"README.md": `
		async def, await, async with, except CancelledError, asyncio.run, asyncio.create_task, asyncio.to_thread
		asyncio.run_coroutine_threadsafe, loop.call_soon_threadsafe, contextvars, concurrent.futures, threading.local`,
}

// A porting row is one of the tables on the pages of docs/porting.
type portingRow struct {
	names []string // of the Python side
	here  []string // Go expressions
	none  bool     // there is no counterpart
	why   string
}

// portingRows returns the rows of the page's tables, all of which have three columns.
func portingRows(t *testing.T, p page) (rows []portingRow) {
	t.Helper()
	line := 0 // of the table: 0 outside of it
	for text := range strings.Lines(p.prose()) {
		text = strings.TrimSpace(text)
		if !strings.HasPrefix(text, "|") {
			line = 0
			continue
		}
		line++
		require.Equal(t, line == 2, text == "|---|---|---|", "%s: a table has a head: %s", p.path, text)
		if line <= 2 {
			continue
		}
		cells := strings.Split(strings.Trim(text, "|"), "|")
		require.Len(t, cells, 3, "%s: %s", p.path, text)
		row := portingRow{why: strings.TrimSpace(cells[2])}
		for _, span := range codeSpan.FindAllString(cells[0], -1) {
			row.names = append(row.names, strings.Trim(span, "`"))
		}
		for _, span := range codeSpan.FindAllString(cells[1], -1) {
			row.here = append(row.here, strings.Trim(span, "`"))
		}
		row.none = strings.TrimSpace(cells[1]) == "none"
		require.NotEmpty(t, row.names, "%s: no name in %s", p.path, text)
		rows = append(rows, row)
	}
	return rows
}

func portingPages(t *testing.T) []page {
	t.Helper()
	var ps []page
	for _, p := range pages(t) {
		if strings.HasPrefix(p.path, "docs/porting/") {
			ps = append(ps, p)
		}
	}
	require.Equal(t, len(ported), len(ps))
	return ps
}

// Each of the names has one row, which says what it is here, or why there is
// nothing; and there are no other rows.
func TestPortingTablesAreComplete(t *testing.T) {
	for _, p := range portingPages(t) {
		listed := map[string]bool{}
		for _, name := range strings.FieldsFunc(ported[filepath.Base(p.path)], func(r rune) bool { return r == ',' || r == '\n' }) {
			if name = strings.TrimSpace(name); name != "" {
				require.False(t, listed[name], "the list of %s has %s twice", p.path, name)
				listed[name] = true
			}
		}
		require.NotEmpty(t, listed, p.path)
		seen := map[string]bool{}
		for _, row := range portingRows(t, p) {
			for _, name := range row.names {
				require.True(t, listed[name], "%s has a row for %s, which is not in the list", p.path, name)
				require.False(t, seen[name], "%s has two rows for %s", p.path, name)
				seen[name] = true
			}
			if row.none {
				require.NotEmpty(t, row.why, "%s does not say why there is no %s", p.path, row.names)
			} else {
				require.NotEmpty(t, row.here, "%s does not say what %s is here", p.path, row.names)
			}
		}
		for name := range listed {
			require.True(t, seen[name], "%s has no row for %s", p.path, name)
		}
	}
}

// stdlib are the packages of the standard library that expressions may use, by
// their names.
var stdlib = map[string]string{
	"bufio": "bufio", "context": "context", "errors": "errors", "exec": "os/exec", "http": "net/http",
	"httptest": "net/http/httptest", "io": "io", "json": "encoding/json", "net": "net", "netip": "net/netip", "os": "os",
	"runtime": "runtime", "signal": "os/signal", "sync": "sync", "synctest": "testing/synctest", "testing": "testing",
	"time": "time", "tls": "crypto/tls",
}

// What the tables put in the place of Python's names are Go expressions, which
// the compiler takes with the variables that the index page declares.
func TestPortingExpressionsCompile(t *testing.T) {
	needGo(t)
	ps := portingPages(t)
	names := map[string]string{}
	for name, path := range imports {
		names[name] = path
	}
	for name, path := range stdlib {
		names[name] = path
	}
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}"}
	var header strings.Builder
	header.WriteString("package tables\n\n")
	for _, path := range names {
		args = append(args, path)
		header.WriteString("import \"" + path + "\"\n")
	}
	dir, _ := module(t, nil)
	stdout, stderr, err := goTool(t, dir, args...)
	require.NoError(t, err, stderr)
	exports := map[string]string{}
	for line := range strings.Lines(stdout) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[path] = file
	}

	var declarations string
	for _, p := range ps {
		if filepath.Base(p.path) == "README.md" {
			declarations = p.blocks(t)[0].code
		}
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "tables.go", header.String()+declarations, 0)
	require.NoError(t, err)
	conf := types.Config{
		DisableUnusedImportCheck: true,
		Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
			return os.Open(exports[path])
		}),
	}
	pkg, err := conf.Check("tables", fset, []*ast.File{file}, nil)
	require.NoError(t, err)

	checked := 0
	for _, p := range ps {
		for _, row := range portingRows(t, p) {
			for _, text := range row.here {
				expr, err := parser.ParseExprFrom(fset, p.path, text, 0)
				require.NoError(t, err, "%s, %s: `%s`", p.path, row.names, text)
				require.NoError(t, types.CheckExpr(fset, pkg, file.Name.Pos(), expr, nil), "%s, %s: `%s`", p.path, row.names, text)
				checked++
			}
		}
	}
	require.NotZero(t, checked)
}
