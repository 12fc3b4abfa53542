package nesting

// All that programs consist of. What an operation is, and how it is made, is in the file
// of the operations that it belongs to.
//
// Seeds stand for programs. A new choice of a menu gives all seeds other programs. A new
// offer, or a new function that prepares, gives other programs only to a Config for which
// it draws a random number.

// anywhere is what an operation is picked from where no other offer is taken.
var anywhere = menu{
	{1, oneIn(4, (*generator).look, (*generator).variable)},
	{1, (*generator).undo},
	{9, (*generator).call},
	{1, (*generator).insensitive},
	{6, (*generator).from},
	{3, (*generator).spawn},
	{3, (*generator).wait},
	{2, (*generator).joined},
	{2, (*generator).group},
	{1, (*generator).shared},
	{2, (*generator).scope},
	{1, (*generator).handle},
	{1, (*generator).detach},
	{1, (*generator).cancelBefore},
	{1, whereLoose(oneIn(2, (*generator).leave, (*generator).closeEarly), cancellations.pick)},
	{1, whereLoose((*generator).startFails, oneIn(4, (*generator).startFails, (*generator).taskCancel))},
	{2, (*generator).cancelledTask},
	{2, (*generator).tokens},
	{1, (*generator).executor},
	{1, oneIn(2, (*generator).open, (*generator).posts)},
	{1, (*generator).stopped},
	{1, oneIn(3, (*generator).after, (*generator).taint)},
	{1, (*generator).value},
	{2, (*generator).loose},
	{1, (*generator).burst},
}

// onLoop is the same for what is below a task of a loop.
var onLoop = menu{
	{1, (*generator).variable},
	{1, (*generator).undo},
	{6, (*generator).callOnLoop},
	{4, (*generator).fromOnLoop},
	{2, (*generator).toLoop},
	{2, (*generator).spawn},
	{2, (*generator).wait},
	{2, (*generator).joined},
	{1, (*generator).groupOnLoop},
	{1, (*generator).scope},
	{1, (*generator).cancelBefore},
	{1, (*generator).look},
}

// withPortals is what is made with portals.
var withPortals = menu{
	{2, (*generator).privatePortal},
	{1, (*generator).stopRace},
	{1, (*generator).provided},
	{12, (*generator).throughPortal},
}

// This is no initializer of features, because the functions that it names refer to
// features in turn.
func init() {
	enter(variableOps, callOps, taskOps, groupOps, scopeOps, cancelOps, burstOps, executorOps, threadEndOps,
		limiterOps, portalOps, portalStopOps, endOps, looseOps, plantOps, lookOps)

	features.prepare = []func(*generator, *state){
		(*generator).contexts,
		(*generator).limiters,
		(*generator).portals,
		(*generator).goFar,
		(*generator).pools,
		(*generator).looseRoots,
	}

	features.first = []maker{(*generator).cycle}
	features.offers = []offer{
		{func(g *generator, s *state) bool { return g.cfg.Portals > 0 && g.coin(4) }, withPortals.pick},
		{func(g *generator, s *state) bool { return g.cfg.Plant && g.cfg.Loops > 0 && g.coin(8) }, (*generator).locked},
		{func(g *generator, s *state) bool { return g.cfg.Ends && g.coin(12) }, (*generator).timeout},
		{func(g *generator, s *state) bool { return s.loop > 0 && (!g.cfg.Ends || g.coin(2)) }, onLoop.pick},
		{func(g *generator, s *state) bool { return g.cfg.Loops > 0 && (!s.loose || g.cfg.Ends) && g.coin(4) }, (*generator).toLoop},
		{func(g *generator, s *state) bool { return true }, anywhere.pick},
	}
	features.filler = (*generator).variable

	features.provide = []func(*run) (end func()){
		(*run).startPools,
		(*run).startLimiters,
		(*run).startContexts,
		(*run).startPortals,
		(*run).startLoops,
	}
}
