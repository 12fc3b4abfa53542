// Each function of ODBC that the driver calls is defined here again, and so comes
// before that of libodbc: it records who calls, and calls the other.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "record.h"

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; // guards what follows

// The connections and statements that are there. A number is given once.
enum { MOST = 1024 };
static struct { SQLHANDLE handle; int conn; } known[MOST];
static int conns;

static int recording;
static asyncsync_call *calls;
static int ncalls, room;

static int conn_of(SQLHANDLE h) {
	if (h != NULL)
		for (int i = 0; i < MOST; i++)
			if (known[i].handle == h)
				return known[i].conn;
	return 0;
}

static void learn(SQLHANDLE h, int conn) {
	for (int i = 0; i < MOST; i++)
		if (known[i].handle == NULL) {
			known[i].handle = h;
			known[i].conn = conn;
			return;
		}
	abort(); // more than any test opens
}

static void forget(SQLHANDLE h) {
	for (int i = 0; i < MOST; i++)
		if (known[i].handle == h)
			known[i].handle = NULL;
}

// note records a call, with mu held.
static void note(const char *name, int conn) {
	if (!recording)
		return;
	if (ncalls == room) {
		room = room ? 2 * room : 256;
		calls = realloc(calls, room * sizeof *calls);
		if (calls == NULL)
			abort();
	}
	calls[ncalls++] = (asyncsync_call){name, conn, syscall(SYS_gettid)};
}

static pthread_cond_t changed = PTHREAD_COND_INITIALIZER; // what follows
static char held[64]; // the function of which calls wait, if any
static int waiting;   // those calls

static void called(const char *name, SQLHANDLE h) {
	pthread_mutex_lock(&mu);
	note(name, conn_of(h));
	waiting++;
	while (strcmp(held, name) == 0) {
		pthread_cond_broadcast(&changed);
		pthread_cond_wait(&changed, &mu);
	}
	waiting--;
	pthread_mutex_unlock(&mu);
}

void asyncsync_hold(const char *name) {
	pthread_mutex_lock(&mu);
	strncpy(held, name, sizeof held - 1);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mu);
}

void asyncsync_await(void) {
	pthread_mutex_lock(&mu);
	while (held[0] != 0 && waiting == 0)
		pthread_cond_wait(&changed, &mu);
	pthread_mutex_unlock(&mu);
}

void asyncsync_record(int on) {
	pthread_mutex_lock(&mu);
	recording = on;
	if (on)
		ncalls = 0;
	pthread_mutex_unlock(&mu);
}

int asyncsync_recorded(asyncsync_call **first) {
	*first = calls;
	return ncalls;
}

static void *next(const char *name) {
	void *f = dlsym(RTLD_NEXT, name);
	if (f == NULL)
		abort(); // libodbc lacks it
	return f;
}

// FORWARD defines a function whose first parameter is the handle h.
#define FORWARD(name, params, args) \
	SQLRETURN SQL_API name params { \
		static SQLRETURN(*own) params; \
		called(#name, h); \
		if (__atomic_load_n(&own, __ATOMIC_RELAXED) == NULL) \
			__atomic_store_n(&own, next(#name), __ATOMIC_RELAXED); \
		return own args; \
	}

FORWARD(SQLDriverConnectW, (SQLHDBC h, SQLHWND w, SQLWCHAR *in, SQLSMALLINT n, SQLWCHAR *out, SQLSMALLINT size, SQLSMALLINT *len, SQLUSMALLINT how), (h, w, in, n, out, size, len, how))
FORWARD(SQLDisconnect, (SQLHDBC h), (h))
FORWARD(SQLSetConnectAttr, (SQLHDBC h, SQLINTEGER attr, SQLPOINTER v, SQLINTEGER n), (h, attr, v, n))
FORWARD(SQLSetConnectAttrW, (SQLHDBC h, SQLINTEGER attr, SQLPOINTER v, SQLINTEGER n), (h, attr, v, n))
FORWARD(SQLPrepareW, (SQLHSTMT h, SQLWCHAR *text, SQLINTEGER n), (h, text, n))
FORWARD(SQLNumParams, (SQLHSTMT h, SQLSMALLINT *n), (h, n))
FORWARD(SQLDescribeParam, (SQLHSTMT h, SQLUSMALLINT i, SQLSMALLINT *type, SQLULEN *size, SQLSMALLINT *digits, SQLSMALLINT *null), (h, i, type, size, digits, null))
FORWARD(SQLBindParameter, (SQLHSTMT h, SQLUSMALLINT i, SQLSMALLINT io, SQLSMALLINT ctype, SQLSMALLINT type, SQLULEN size, SQLSMALLINT digits, SQLPOINTER v, SQLLEN n, SQLLEN *ind), (h, i, io, ctype, type, size, digits, v, n, ind))
FORWARD(SQLExecute, (SQLHSTMT h), (h))
FORWARD(SQLCancel, (SQLHSTMT h), (h))
FORWARD(SQLNumResultCols, (SQLHSTMT h, SQLSMALLINT *n), (h, n))
FORWARD(SQLDescribeColW, (SQLHSTMT h, SQLUSMALLINT i, SQLWCHAR *name, SQLSMALLINT room, SQLSMALLINT *len, SQLSMALLINT *type, SQLULEN *size, SQLSMALLINT *digits, SQLSMALLINT *null), (h, i, name, room, len, type, size, digits, null))
FORWARD(SQLBindCol, (SQLHSTMT h, SQLUSMALLINT i, SQLSMALLINT type, SQLPOINTER v, SQLLEN n, SQLLEN *ind), (h, i, type, v, n, ind))
FORWARD(SQLGetData, (SQLHSTMT h, SQLUSMALLINT i, SQLSMALLINT type, SQLPOINTER v, SQLLEN n, SQLLEN *ind), (h, i, type, v, n, ind))
FORWARD(SQLFetch, (SQLHSTMT h), (h))
FORWARD(SQLMoreResults, (SQLHSTMT h), (h))
FORWARD(SQLRowCount, (SQLHSTMT h, SQLLEN *n), (h, n))
FORWARD(SQLCloseCursor, (SQLHSTMT h), (h))

SQLRETURN SQL_API SQLEndTran(SQLSMALLINT type, SQLHANDLE h, SQLSMALLINT how) {
	SQLRETURN (*own)(SQLSMALLINT, SQLHANDLE, SQLSMALLINT) = next("SQLEndTran");
	called("SQLEndTran", h);
	return own(type, h, how);
}

SQLRETURN SQL_API SQLGetDiagRecW(SQLSMALLINT type, SQLHANDLE h, SQLSMALLINT i, SQLWCHAR *state, SQLINTEGER *native, SQLWCHAR *text, SQLSMALLINT room, SQLSMALLINT *len) {
	SQLRETURN (*own)(SQLSMALLINT, SQLHANDLE, SQLSMALLINT, SQLWCHAR *, SQLINTEGER *, SQLWCHAR *, SQLSMALLINT, SQLSMALLINT *) = next("SQLGetDiagRecW");
	called("SQLGetDiagRecW", h);
	return own(type, h, i, state, native, text, room, len);
}

SQLRETURN SQL_API SQLAllocHandle(SQLSMALLINT type, SQLHANDLE parent, SQLHANDLE *h) {
	SQLRETURN (*own)(SQLSMALLINT, SQLHANDLE, SQLHANDLE *) = next("SQLAllocHandle");
	SQLRETURN ret = own(type, parent, h);
	if (!SQL_SUCCEEDED(ret) || (type != SQL_HANDLE_DBC && type != SQL_HANDLE_STMT))
		return ret;
	pthread_mutex_lock(&mu);
	learn(*h, type == SQL_HANDLE_DBC ? ++conns : conn_of(parent));
	note("SQLAllocHandle", conn_of(*h));
	pthread_mutex_unlock(&mu);
	return ret;
}

SQLRETURN SQL_API SQLFreeHandle(SQLSMALLINT type, SQLHANDLE h) {
	SQLRETURN (*own)(SQLSMALLINT, SQLHANDLE) = next("SQLFreeHandle");
	pthread_mutex_lock(&mu);
	note("SQLFreeHandle", conn_of(h));
	forget(h);
	pthread_mutex_unlock(&mu);
	return own(type, h);
}
