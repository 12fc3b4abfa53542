#include <sql.h>
#include <sqlext.h>
#include <sqlucode.h>

// A call of a function of ODBC: its name, the number of the connection that it is
// for, 0 if it is for none, and the OS thread that calls.
typedef struct { const char *name; int conn; int thread; } asyncsync_call;

// asyncsync_record begins to record, or ends it.
void asyncsync_record(int on);

// asyncsync_recorded returns how many calls were recorded, and where they are.
int asyncsync_recorded(asyncsync_call **first);

// asyncsync_hold has calls of that function wait until it is called again; the empty
// name is that of none. asyncsync_await waits until there is such a call.
void asyncsync_hold(const char *name);
void asyncsync_await(void);
