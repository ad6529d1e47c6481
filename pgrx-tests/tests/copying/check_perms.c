/* An ExecutorCheckPerms hook that refuses a table by its name, as extensions that audit or restrict do. */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

PG_MODULE_MAGIC;

static char *refused;
static int	privileges;
static ExecutorCheckPerms_hook_type next;

static void
refuse(Oid relation, AclMode asked)
{
	char	   *name = get_rel_name(relation);

	if (name && refused[0] && strcmp(name, refused) == 0 && (asked & privileges))
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("check_perms refuses %s", name));
}

#if PG_VERSION_NUM >= 160000
static bool
check(List *tables, List *permissions, bool report)
{
	ListCell   *cell;

	foreach(cell, permissions)
		refuse(lfirst_node(RTEPermissionInfo, cell)->relid, lfirst_node(RTEPermissionInfo, cell)->requiredPerms);
	return next ? next(tables, permissions, report) : true;
}
#else
static bool
check(List *tables, bool report)
{
	ListCell   *cell;

	foreach(cell, tables)
		if (lfirst_node(RangeTblEntry, cell)->rtekind == RTE_RELATION)
			refuse(lfirst_node(RangeTblEntry, cell)->relid, lfirst_node(RangeTblEntry, cell)->requiredPerms);
	return next ? next(tables, report) : true;
}
#endif

void
_PG_init(void)
{
	DefineCustomStringVariable("check_perms.refuse", "A table to refuse.", NULL, &refused, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("check_perms.privileges", "For what.", NULL, &privileges, 0, 0, INT_MAX, PGC_USERSET, 0, NULL, NULL, NULL);
	next = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = check;
}
